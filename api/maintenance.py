"""A cleanup by hand: accepted like everything else, as rows of `maintenance_runs`, then rung for."""

import asyncio
from typing import Any, Final
from uuid import UUID

from fastapi import APIRouter, Response
from sqlalchemy import insert
from uuid_utils.compat import uuid7

from api.auth import EVERYONE, Service
from api.headers import Prefer, preferred_wait
from api.problems import Problem, problem_json
from api.reading import in_time, read
from api.responses import json, problem_responses, task_responses
from api.state import Parts, State
from db import logs, queries
from db.access import Role
from db.models import MaintenanceRun
from workers.messages import DELETE_SESSIONS, EXPIRE_SESSIONS

router = APIRouter(tags=["maintenance"])

POLL_SECONDS: Final = 0.1
RESULT_OF: Final = {EXPIRE_SESSIONS: "expired", DELETE_SESSIONS: "deleted"}


@router.post(
    "/api/maintenance/cleanup",
    status_code=202,
    responses=task_responses(200) | problem_responses("forbidden", "unsupported_media_type"),
)
async def cleanup(parts: Parts, principal: Service, prefer: Prefer = None) -> Response:
    """Expire and delete now."""
    wait = preferred_wait(prefer)
    cleanup_id = await begin_cleanup(parts)
    headers = {"Location": f"/api/tasks/{cleanup_id}"}
    if wait:
        headers["Preference-Applied"] = f"wait={wait}"
        task = await cleanup_task(parts, cleanup_id, wait)
        if task["state"] != "PENDING":
            return json(task, 200, headers)
    return json({"task_id": cleanup_id, "session_id": None, "state": "PENDING"}, 202, headers)


async def begin_cleanup(parts: State) -> UUID:
    """Accept a cleanup: one run for each sweep, committed, then rung for."""
    cleanup_id: UUID = uuid7()
    runs = [
        {"id": uuid7(), "task": name, "trigger": "http", "cleanup_id": cleanup_id}
        for name in (EXPIRE_SESSIONS, DELETE_SESSIONS)
    ]
    await in_time(_commit(parts, runs))
    for run in runs:
        await parts.doorbells.send(str(run["task"]), [str(run["id"])])
    return cleanup_id


async def _commit(parts: State, runs: list[dict[str, Any]]) -> None:
    with logs.operation("ask for cleanup", cleanup_id=runs[0]["cleanup_id"]) as done:
        async with parts.engines[Role.ACCEPTOR].begin() as connection:
            await connection.execute(insert(MaintenanceRun), runs)
        done.rows = len(runs)


async def cleanup_task(parts: State, cleanup_id: UUID, wait: float) -> dict[str, Any]:
    """A cleanup as a task, finished when both of its runs are. Operators' cleanups are few: polling serves them.

    Raises:
        Problem: `task_not_found`.
    """
    loop = asyncio.get_running_loop()
    until = loop.time() + wait
    while True:
        runs = await read(parts, EVERYONE, queries.CLEANUP_RUNS, cleanup_id=cleanup_id)
        if not runs:
            raise Problem("task_not_found")
        if all(run.finished_at for run in runs) or loop.time() >= until or parts.results.closed:
            return _task(cleanup_id, runs)
        await asyncio.sleep(POLL_SECONDS)


def _task(cleanup_id: UUID, runs: Any) -> dict[str, Any]:
    finished = all(run.finished_at for run in runs)
    failed = any(run.error for run in runs)
    return {
        "id": cleanup_id,
        "kind": "cleanup",
        "state": "PENDING" if not finished else "FAILURE" if failed else "SUCCESS",
        "session_id": None,
        "result": {RESULT_OF[run.task]: run.rows for run in runs} if finished and not failed else None,
        "error": problem_json("internal_error") if failed else None,
        "accepted_at": min(run.requested_at for run in runs),
        "finished_at": max(run.finished_at for run in runs) if finished else None,
    }
