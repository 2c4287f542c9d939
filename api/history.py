"""What happened to a session: its line, what was asked of it, and both as one timeline."""

from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Response

from api import schemas
from api.auth import Authenticated, Principal
from api.reading import read
from api.responses import json, problem_responses
from api.sessions import visible_session
from api.state import Parts
from db import history, queries
from workers.messages import EXPIRE_SESSIONS

router = APIRouter(prefix="/api/sessions", tags=["sessions"])


@router.get(
    "/{session_id}/history",
    response_model=schemas.History,
    responses=problem_responses("session_not_found", "session_pending"),
)
async def session_history(session_id: str, parts: Parts, principal: Authenticated) -> Response:
    """The session's line, what was asked of it, and what happened when; each oldest first, of many the newest."""
    session = await visible_session(parts, principal, session_id)
    limit, tasks_limit = parts.settings.history_limit, parts.settings.history_tasks_limit
    rows = await read(parts, principal, queries.NEWEST_OF_LINE, session_id=session.id, limit=limit)
    line = [queries.session_view(row) for row in reversed(rows)]
    # Whoever else names a session's id has no place in its user's view.
    only = None if principal.service else session.user_id
    ids = [member.id for member in line]
    found = await read(parts, principal, history.NEWEST_ASKED, session_ids=ids, user_id=only, limit=tasks_limit)
    asked = [history.asked_of(row) for row in reversed(found)]
    times = history.ended_at(line)
    done = await read(parts, principal, history.DONE_AT, times=times, user_id=session.user_id)
    # When sweeps ran, and where a task was executed, is the operators' business.
    swept = (
        await read(parts, principal, history.SWEPT_AT, times=times, task=EXPIRE_SESSIONS) if principal.service else ()
    )
    moments = history.timeline(
        line, asked, [history.asked_of(row) for row in done], [history.Sweep(*row) for row in swept]
    )
    return json(
        {
            "sessions": [member.as_json() for member in line],
            "tasks": [_asked_json(task, principal) for task in asked],
            "timeline": [asdict(moment) for moment in moments],
        }
    )


def _asked_json(task: history.Asked, principal: Principal) -> dict[str, Any]:
    return asdict(task) | ({} if principal.service else dict.fromkeys(("worker", "celery_task_id")))
