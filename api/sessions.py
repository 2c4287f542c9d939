"""The paths of sessions: thin edges over accept, and the reads."""

import asyncio
from typing import Any

import structlog
from fastapi import APIRouter, Response
from sqlalchemy import update

from api import schemas
from api.auth import Authenticated, Principal
from api.headers import AskHeaders, Asking
from api.ids import known_id
from api.limits import BODY_LIMIT
from api.problems import Problem, unavailable
from api.reading import READ_SECONDS, read
from api.responses import json, problem_responses
from api.state import Parts, State
from api.tasks import answer, ask, user_of
from db import queries
from db.engine import is_outage
from db.lifecycle import Kind, merged
from db.models import CheckoutSession
from db.queries import SessionView

log = structlog.get_logger("sessions")
router = APIRouter(prefix="/api/sessions", tags=["sessions"])

_ACCEPTED: dict[int | str, dict[str, Any]] = {
    200: {"model": schemas.Task, "description": "Waited for: the finished task"},
    201: {"model": schemas.Task, "description": "Waited for: the finished create"},
    202: {"model": schemas.Accepted, "description": "Accepted; poll `Location`"},
}
_WRITES = ("invalid_request", "forbidden", "malformed_json", "body_too_large", "unsupported_media_type",
           "idempotency_key_reused", "backlog_full", "gave_up")  # fmt: skip


@router.post("", status_code=202, responses=_ACCEPTED | problem_responses(*_WRITES))
async def create_session(body: schemas.Create, parts: Parts, principal: Authenticated, headers: Asking) -> Response:
    """Begin a session. The user's active one, if any, becomes `invalidated`; of concurrent creates the last wins."""
    user_id = user_of(principal, body.user_id)
    return await _asked(parts, Kind.CREATE, user_id, None, body, headers)


@router.post(
    "/{session_id}/renew",
    status_code=202,
    responses=_ACCEPTED | problem_responses(*_WRITES, "already_completed"),
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
    responses=_ACCEPTED | problem_responses(*_WRITES, "already_completed", "session_unrecoverable"),
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
    responses=_ACCEPTED
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
    row = (await read(parts, queries.ACTIVE_SESSION, user_id=principal.user_id)).one_or_none()
    if row is None:
        raise Problem("no_active_session")
    return json(queries.session_view(row).as_json())


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
    row = (await read(parts, queries.SESSION_BY_ID, session_id=known)).one_or_none()
    view = queries.session_view(row) if row else None
    if view and principal.may_see(view.user_id):
        return view
    if view is None:
        maker = (await read(parts, queries.MAKER, session_id=known)).one_or_none()
        if maker and principal.may_see(maker.user_id):
            raise Problem("session_pending", headers={"Retry-After": "1"}, task_id=maker.id)
    raise Problem("session_not_found")


@router.patch(
    "/{session_id}",
    response_model=schemas.Session,
    responses=problem_responses(
        "session_not_found", "session_pending", "session_not_active", "data_too_large", "invalid_request",
        "malformed_json", "body_too_large", "unsupported_media_type", "forbidden",
    ),
)  # fmt: skip
async def navigate_session(session_id: str, body: schemas.Navigate, parts: Parts, principal: Authenticated) -> Response:
    """Move to another step or change data. The one synchronous write: the last of two wins, and neither is lost."""
    known = known_id(session_id)
    if not principal.service:
        user_of(principal, body.user_id)
    try:
        async with asyncio.timeout(READ_SECONDS):
            changed = await _navigate(parts, principal, known, body)
    except Exception as error:
        if is_outage(error):
            raise unavailable() from error
        raise
    return json((changed or await visible_session(parts, principal, session_id)).as_json())


async def _navigate(parts: State, principal: Principal, session_id: Any, body: schemas.Navigate) -> SessionView | None:
    async with parts.engine.begin() as connection:
        row = (await connection.execute(queries.LOCKED_SESSION, {"session_id": session_id})).one_or_none()
        before = queries.session_view(row) if row else None
        if before is None or not principal.may_see(before.user_id):
            return None
        if not before.valid:
            raise Problem(
                "session_not_active",
                f"The session is {before.status}.",
                successor_id=before.successor_id,
                next="done" if before.status == "completed" else "recover",
            )
        data = merged(before.data, body.data or {})
        if len(json(data).body) > BODY_LIMIT:
            raise Problem("data_too_large")
        step = body.step or before.step
        await connection.execute(
            update(CheckoutSession).where(CheckoutSession.id == session_id).values(step=step, data=data)
        )
        after = (await connection.execute(queries.SESSION_BY_ID, {"session_id": session_id})).one()
    log.info(
        "session navigated",
        session_id=session_id,
        user_id=before.user_id,
        step_from=before.step,
        step_to=step,
        data_keys=sorted(body.data or {}),
    )
    return queries.session_view(after)


@router.get("/{session_id}/history", responses=problem_responses("session_not_found", "session_pending"))
async def session_history(session_id: str, parts: Parts, principal: Authenticated) -> Response:
    """The session's line, oldest first, and what was asked of it when."""
    await visible_session(parts, principal, session_id)
    line = [queries.session_view(row) for row in await read(parts, queries.LINE, session_id=known_id(session_id))]
    asked = await read(parts, queries.ASKED, session_ids=[session.id for session in line], limit=1_000)
    return json(
        {
            "sessions": [session.as_json() for session in line],
            "tasks": [dict(row._mapping) for row in asked],
        }
    )
