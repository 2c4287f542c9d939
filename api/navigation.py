"""PATCH: step navigation and data changes, the one synchronous write."""

from typing import Final
from uuid import UUID

import structlog
from fastapi import APIRouter, Response
from sqlalchemy import update
from sqlalchemy.ext.asyncio import AsyncConnection

from api import schemas
from api.auth import Authenticated, Principal
from api.hot import HotRoute
from api.ids import known_id
from api.problems import Problem
from api.reading import in_time
from api.responses import BODY, json, problem_responses
from api.sessions import visible_session
from api.state import Parts, State
from api.tasks import user_of
from db import logs, queries
from db.access import Role
from db.lifecycle import Status, fits, merged
from db.models import CheckoutSession
from db.queries import SessionView

log = structlog.get_logger("sessions")
router = APIRouter(prefix="/api/sessions", tags=["sessions"], route_class=HotRoute)

_LOCKED_SESSION: Final = queries.as_reader(queries.LOCKED_SESSION)


@router.patch(
    "/{session_id}",
    response_model=schemas.Session,
    responses=problem_responses(
        *BODY, "session_not_found", "session_pending", "session_not_active", "data_too_large", "forbidden"
    ),
)
async def navigate_session(session_id: str, body: schemas.Navigate, parts: Parts, principal: Authenticated) -> Response:
    """Move to another step or change data. The last of two wins, and neither is lost."""
    known = known_id(session_id)
    if not principal.service or body.user_id:
        principal = Principal(user_of(principal, body.user_id), service=False)
    mover = principal
    if principal.service:  # who names nobody moves on the session's behalf
        found = await visible_session(parts, principal, session_id)
        if not found.valid:
            raise _not_active(found)
        mover = Principal(found.user_id, service=False)
    changed = await in_time(_navigate(parts, mover, known, body))
    return json((changed or await visible_session(parts, principal, session_id)).as_json())


async def _navigate(parts: State, principal: Principal, session_id: UUID, body: schemas.Navigate) -> SessionView | None:
    with logs.operation("navigate", session_id=session_id) as done:
        async with parts.engines[Role.NAVIGATOR].begin() as connection:
            asked = {"session_id": session_id, "reader": principal.user_id}
            row = (await connection.execute(_LOCKED_SESSION, asked)).one_or_none()
            before = queries.session_view(row) if row else None
            if before is None or not principal.may_see(before.user_id):
                return None
            if not before.valid:
                raise _not_active(await _read(connection, session_id))
            data = merged(before.data, body.data or {})
            if not fits(data):
                raise Problem("data_too_large")
            step = body.step or before.step
            await connection.execute(
                update(CheckoutSession).where(CheckoutSession.id == session_id).values(step=step, data=data)
            )
            after = await _read(connection, session_id)
        done.rows = 1
    log.info(
        "session navigated",
        session_id=session_id,
        user_id=before.user_id,
        step_from=before.step,
        step_to=step,
        data_keys=sorted(body.data or {}),
    )
    return after


async def _read(connection: AsyncConnection, session_id: UUID) -> SessionView:
    """The locked session, read anew: what its lock was waited for may have made its successor."""
    return queries.session_view((await connection.execute(queries.SESSION_BY_ID, {"session_id": session_id})).one())


def _not_active(session: SessionView) -> Problem:
    return Problem(
        "session_not_active",
        f"The session is {session.status}.",
        successor_id=session.successor_id,
        next="done" if session.status is Status.COMPLETED else "recover",
    )
