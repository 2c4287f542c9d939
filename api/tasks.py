"""Task-making writes and their results: accept, wait, answer; poll and long-poll."""

import hashlib
import time
from typing import Annotated, Any
from uuid import UUID

import orjson
from fastapi import APIRouter, Query, Response
from pydantic import AfterValidator
from uuid_utils.compat import uuid7

from api import accept, schemas
from api.auth import Authenticated, Principal
from api.headers import AskHeaders
from api.ids import known_id
from api.maintenance import cleanup_task
from api.measurements import ACCEPT, ANSWER
from api.problems import KINDS, Problem, refusal_json, retry_header
from api.reading import read
from api.responses import json, problem_responses
from api.sizes import SIZES
from api.state import Parts, State
from db import queries
from db.lifecycle import Kind, TaskState
from db.queries import TaskView

router = APIRouter(tags=["tasks"])


def user_of(principal: Principal, named: str | None) -> str:
    """Whom a write is for: the token's user, or the one that a service names.

    Raises:
        Problem: a service that names none, a user who names another.
    """
    if principal.service:
        if named is None:
            raise Problem("invalid_request", "A service token must name the user in `user_id`.")
        return named
    if named not in (None, principal.user_id):
        raise Problem("forbidden", "`user_id` counts for a service token only.")
    return principal.user_id


async def ask(
    parts: State, kind: Kind, user_id: str, session_id: UUID | None, payload: dict[str, Any], headers: AskHeaders
) -> tuple[accept.Accepted, TaskView | None]:
    """Accept a request and wait for its result as long as the client prefers.

    Args:
        session_id: the session addressed; None for a create, whose session's id is made here.
        payload: `package`, `step`, `data`, `payment_reference`, as far as given.

    Returns:
        The accepted task, and its result if there is one by then.
    """
    parts.backlog.check()
    began = time.perf_counter()
    body = orjson.dumps(payload, option=orjson.OPT_SORT_KEYS)
    task_id: UUID = uuid7()
    request = accept.Request(
        id=task_id,
        kind=kind,
        user_id=user_id,
        session_id=session_id or uuid7(),
        payload=body,
        idempotency_key=headers.idempotency_key,
        request_hash=_hash(kind, session_id, body) if headers.idempotency_key else None,
        request_id=headers.request_id,
    )
    with parts.results.expecting(task_id) as result:
        accepted = await parts.acceptor.accept(request)
        parts.backlog.accepted()
        ACCEPT.observe(time.perf_counter() - began)
        if accepted.id == task_id:
            task = await result.within(headers.wait)
            if task:
                ANSWER.observe(time.perf_counter() - began)
            return accepted, task
    return accepted, await parts.results.wait(accepted.id, headers.wait) if headers.wait else None


def _hash(kind: Kind, session_id: UUID | None, body: bytes) -> str:
    return hashlib.sha256(b"%b %b %b" % (kind.encode(), str(session_id).encode(), body)).hexdigest()


def answer(accepted: accept.Accepted, task: TaskView | None, wait: int) -> Response:
    """202 with where to poll; or, waited for, the finished task: 201 for a create, 200 else, or its problem."""
    headers = {"Location": f"/api/tasks/{accepted.id}"}
    if wait:
        headers["Preference-Applied"] = f"wait={wait}"
    if task is None:
        body = {"task_id": accepted.id, "session_id": accepted.session_id, "state": accepted.state}
        return json(body, 202, headers)
    if task.refusal:
        problem = refusal_json(task.refusal, task.reason, task.session_id) | {"task_id": task.id}
        headers |= retry_header(task.refusal)
        return json(problem, KINDS[task.refusal].status, headers, "application/problem+json")
    return json(task_json(task), 201 if task.kind is Kind.CREATE else 200, headers)


def task_json(task: TaskView) -> dict[str, Any]:
    """The task of the HTTP contract."""
    return {
        "id": task.id,
        "kind": task.kind,
        "state": task.state,
        "session_id": task.session_id,
        "result": task.result.as_json() if task.result else None,
        "error": refusal_json(task.refusal, task.reason, task.session_id) if task.refusal else None,
        "accepted_at": task.accepted_at,
        "finished_at": task.finished_at,
    }


def _wait(seconds: int) -> int:
    if not 0 <= seconds <= SIZES.wait:
        raise ValueError(f"must be from 0 to {SIZES.wait}")
    return seconds


@router.get(
    "/api/tasks/{task_id}",
    response_model=schemas.Task,
    responses=problem_responses("task_not_found", "invalid_request"),
)
async def poll_task(
    task_id: str,
    parts: Parts,
    principal: Authenticated,
    wait: Annotated[int, AfterValidator(_wait), Query(description="seconds to wait for the result")] = 0,
) -> Response:
    """The task, finished or not; with `wait`, as soon as it is finished or when the time is over."""
    known = known_id(task_id)
    rows = await read(parts, principal, queries.TASKS_BY_ID, task_ids=[known])
    task = queries.task_view(rows[0]) if rows else None
    if task is None and principal.service:
        return json(await cleanup_task(parts, known, wait))
    if task is None or not principal.may_see(task.user_id):
        raise Problem("task_not_found")
    if task.state is TaskState.PENDING and wait:
        task = await parts.results.wait(task.id, wait) or task
    if not principal.service:
        return json(task_json(task))
    executions = await read(parts, principal, queries.EXECUTION, task_id=known)
    return json(task_json(task) | (executions[0]._asdict() if executions else {}))
