"""The paths that the shop's frontend already calls: thin translations to and from camelCase, which wait."""

from typing import Any, Final

from fastapi import APIRouter, Response
from pydantic import BaseModel
from pydantic.alias_generators import to_camel

from api import legacy_schemas as schemas
from api.auth import Authenticated, Principal, Service
from api.headers import AskHeaders, Asking
from api.hot import HotRoute
from api.ids import known_id
from api.maintenance import begin_cleanup, cleanup_task
from api.problems import Problem
from api.responses import BODY, Described, json, problem_responses
from api.schemas import CleanupResult
from api.sessions import visible_session
from api.state import Parts, State
from api.tasks import ask
from db.lifecycle import Kind
from db.queries import SessionView

router = APIRouter(prefix="/api", tags=["old paths"], route_class=HotRoute)

WAIT_SECONDS: Final = 25  # the old paths have no way to poll


def _described(answer: type[BaseModel], *codes: str) -> Described:
    return {200: {"model": answer}} | problem_responses(*codes, old=True)


_WRITES: Final = (*BODY, "idempotency_key_reused", "backlog_full", "gave_up", "still_pending")
_CLEANUP: Final = _described(CleanupResult, "forbidden", "still_pending", "unsupported_media_type")


def old_session(session: SessionView) -> dict[str, Any]:
    """A session as the old frontend reads it; what the shop keeps in `data` stays as it is."""
    return {to_camel(key): value for key, value in session.as_json().items()}


@router.post(
    "/create-checkout-session",
    responses=_described(schemas.OldCreated, *_WRITES, "already_completed", "data_too_large"),
)
async def old_create(body: schemas.OldCreate, parts: Parts, principal: Authenticated, headers: Asking) -> Response:
    """Create, or with `existingSessionId` renew."""
    payload: dict[str, Any] = {"package": body.package_id}
    if body.data is not None:
        payload["data"] = body.data
    kind = Kind.RENEW if body.existing_session_id else Kind.CREATE
    session = await _waited(parts, principal, kind, body, body.existing_session_id, payload, headers)
    return json(
        {
            "sessionId": session.id,
            "status": session.status,
            "expiresAt": session.expires_at,
            "renewed": session.previous_session_id is not None,
        }
    )


@router.post(
    "/validate-checkout-session",
    responses=_described(schemas.OldValidated, *BODY, "session_not_found", "session_pending"),
)
async def old_validate(body: schemas.OldSession, parts: Parts, principal: Authenticated) -> Response:
    """Validate."""
    session = await visible_session(parts, principal, body.session_id)
    return json(
        {
            "valid": session.valid,
            "status": session.status,
            "session": old_session(session),
            "successorId": session.successor_id,
        }
    )


@router.post(
    "/recover-checkout-session",
    responses=_described(schemas.OldRecovered, *_WRITES, "already_completed", "session_unrecoverable"),
)
async def old_recover(body: schemas.OldSession, parts: Parts, principal: Authenticated, headers: Asking) -> Response:
    """Recover."""
    session = await _waited(parts, principal, Kind.RECOVER, body, body.session_id, {}, headers)
    return json({"recovered": True, "sessionId": session.id, "message": "Your checkout is back, you can go on."})


@router.post(
    "/complete-checkout-session",
    responses=_described(
        schemas.OldCompleted,
        *_WRITES, "already_completed", "payment_reference_used", "session_expired", "session_not_found",
    ),
)  # fmt: skip
async def old_complete(body: schemas.OldComplete, parts: Parts, principal: Authenticated, headers: Asking) -> Response:
    """Complete."""
    payload = {"payment_reference": body.payment_reference}
    session = await _waited(parts, principal, Kind.COMPLETE, body, body.session_id, payload, headers)
    return json({"success": True, "session": old_session(session)})


@router.post("/cleanup-expired-sessions", responses=_CLEANUP)
@router.get("/cleanup-expired-sessions", responses=_CLEANUP)
async def old_cleanup(parts: Parts, principal: Service) -> Response:
    """Expire and delete now; a cron job may call it."""
    task = await cleanup_task(parts, await begin_cleanup(parts), WAIT_SECONDS)
    if task["result"] is None:
        raise Problem("still_pending" if task["state"] == "PENDING" else "internal_error")
    return json(task["result"])


async def _waited(
    parts: State,
    principal: Principal,
    kind: Kind,
    body: schemas.OldBody,
    session_id: str | None,
    payload: dict[str, Any],
    headers: AskHeaders,
) -> SessionView:
    """Ask, and wait for the session that comes of it."""
    if principal.service and body.user_id is None:
        raise Problem("invalid_request", "A service token must name the user in `userId`.")
    user_id = body.user_id if principal.service and body.user_id else principal.user_id
    addressed = known_id(session_id) if session_id else None
    waiting = AskHeaders(WAIT_SECONDS, headers.idempotency_key, headers.request_id)
    _, task = await ask(parts, kind, user_id, addressed, payload, waiting)
    if task is None:
        raise Problem("still_pending")
    if task.refusal:
        raise Problem(task.refusal)
    if task.result is None:
        raise Problem("session_not_found")
    return task.result
