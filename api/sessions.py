"""The paths of sessions: thin edges over accept, and the reads."""

from typing import Final
from uuid import UUID

from fastapi import APIRouter, Response

from api import schemas
from api.auth import Authenticated, Principal
from api.headers import AskHeaders, Asking
from api.hot import HotRoute
from api.ids import known_id
from api.problems import Problem
from api.reading import read
from api.responses import BODY, json, problem_responses, task_responses
from api.state import Parts, State
from api.tasks import answer, ask, user_of
from db import queries
from db.lifecycle import Kind
from db.queries import SessionView

router = APIRouter(prefix="/api/sessions", tags=["sessions"], route_class=HotRoute)

_WRITES: Final = (*BODY, "forbidden", "idempotency_key_reused", "backlog_full", "gave_up")


@router.post("", status_code=202, responses=task_responses(201) | problem_responses(*_WRITES))
async def create_session(body: schemas.Create, parts: Parts, principal: Authenticated, headers: Asking) -> Response:
    """Begin a session. The user's active one, if any, becomes `invalidated`; of concurrent creates the last wins."""
    user_id = user_of(principal, body.user_id)
    return await _asked(parts, Kind.CREATE, user_id, None, body, headers)


@router.post(
    "/{session_id}/renew",
    status_code=202,
    responses=task_responses(200) | problem_responses(*_WRITES, "already_completed", "data_too_large"),
)
async def renew_session(
    session_id: str,
    body: schemas.Renew,
    parts: Parts,
    principal: Authenticated,
    headers: Asking,
) -> Response:
    """Change the package: a new session with all the rest of the old one's data, which becomes `invalidated`."""
    user_id = user_of(principal, body.user_id)
    return await _asked(parts, Kind.RENEW, user_id, session_id, body, headers)


@router.post(
    "/{session_id}/recover",
    status_code=202,
    responses=task_responses(200) | problem_responses(*_WRITES, "already_completed", "session_unrecoverable"),
)
async def recover_session(
    session_id: str,
    parts: Parts,
    principal: Authenticated,
    headers: Asking,
    body: schemas.Recover | None = None,
) -> Response:
    """Bring a session back: the user's active one, or a new one with the old one's package and data."""
    asked = body or schemas.Recover()
    return await _asked(parts, Kind.RECOVER, user_of(principal, asked.user_id), session_id, asked, headers)


@router.post(
    "/{session_id}/complete",
    status_code=202,
    responses=task_responses(200)
    | problem_responses(
        *_WRITES, "already_completed", "payment_reference_used", "session_expired", "session_not_found"
    ),
)
async def complete_session(
    session_id: str,
    body: schemas.Complete,
    parts: Parts,
    principal: Authenticated,
    headers: Asking,
) -> Response:
    """The payment went through. Counted as of its acceptance, however late it is executed."""
    user_id = user_of(principal, body.user_id)
    return await _asked(parts, Kind.COMPLETE, user_id, session_id, body, headers)


async def _asked(
    parts: State,
    kind: Kind,
    user_id: str,
    session_id: str | None,
    body: schemas.Body,
    headers: AskHeaders,
) -> Response:
    payload = body.model_dump(exclude_none=True, exclude={"user_id"})
    addressed = None if session_id is None else known_id(session_id)
    accepted, task = await ask(parts, kind, user_id, addressed, payload, headers)
    return answer(accepted, task, headers.wait)


@router.get("/current", response_model=schemas.Session, responses=problem_responses("no_active_session"))
async def current_session(parts: Parts, principal: Authenticated) -> Response:
    """The user's active session."""
    rows = await read(parts, principal, queries.ACTIVE_SESSION, user_id=principal.user_id)
    if not rows:
        raise Problem("no_active_session")
    return json(queries.session_view(rows[0]).as_json())


@router.get(
    "/{session_id}",
    response_model=schemas.Session,
    responses=problem_responses("session_not_found", "session_pending"),
)
async def validate_session(session_id: str, parts: Parts, principal: Authenticated) -> Response:
    """The session with its effective status, and what to do next."""
    return json((await visible_session(parts, principal, session_id)).as_json())


async def visible_session(parts: State, principal: Principal, session_id: str) -> SessionView:
    """A session that the principal may see.

    Raises:
        Problem: `session_not_found`, the same for another's and for an unknown one; `session_pending`.
    """
    known = known_id(session_id)
    view = await _session(parts, principal, known)
    if view is None:
        makers = await read(parts, principal, queries.MAKER, session_id=known)
        if makers and principal.may_see(makers[0].user_id):
            raise Problem("session_pending", task_id=makers[0].id)
        view = await _session(parts, principal, known)  # it may have been made between the two looks
    if view is None or not principal.may_see(view.user_id):
        raise Problem("session_not_found")
    return view


async def _session(parts: State, principal: Principal, session_id: UUID) -> SessionView | None:
    rows = await read(parts, principal, queries.SESSION_BY_ID, session_id=session_id)
    return queries.session_view(rows[0]) if rows else None
