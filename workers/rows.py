"""Between the rows of the statements and the values of the rules."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from db.decisions import Change
from db.lifecycle import Kind, Origin, Outcome, Session, Status, Task


@dataclass(frozen=True, slots=True)
class Taken:
    """A pending task under the lock, with what is known of its earlier deliveries, and the transaction's clock."""

    task: Task
    rings: int
    attempts: int
    request_id: str | None
    now: datetime


def taken_of(row: Sequence[Any]) -> Taken:
    """One row of `statements.TAKE`."""
    task_id, seq, kind, user_id, session_id, payload, accepted_at, rings, attempts, request_id, now = row
    task = Task(
        id=task_id,
        seq=seq,
        kind=Kind(kind),
        user_id=user_id,
        session_id=session_id,
        accepted_at=accepted_at,
        package=payload.get("package"),
        step=payload.get("step"),
        data=payload.get("data") or {},
        payment_reference=payload.get("payment_reference"),
    )
    return Taken(task, rings, attempts, request_id, now)


def session_of(row: Sequence[Any]) -> Session:
    """One row of `statements.LOAD`."""
    session_id, user_id, status, package, step, data, origin, *rest = row
    return Session(session_id, user_id, Status(status), package, step, data, Origin(origin), *rest)


def change_parameters(changes: Sequence[Change]) -> dict[str, list[Any]]:
    """Arrays for `statements.CHANGE_SESSIONS`."""
    return {
        "id": [change.session.id for change in changes],
        "was": [str(change.was) for change in changes],
        "status": [str(change.session.status) for change in changes],
        "completed_at": [change.session.completed_at for change in changes],
        "payment_reference": [change.session.payment_reference for change in changes],
    }


def add_parameters(sessions: Sequence[Session]) -> dict[str, list[Any]]:
    """Arrays for `statements.ADD_SESSIONS`."""
    return {
        "id": [session.id for session in sessions],
        "user_id": [session.user_id for session in sessions],
        "status": [str(session.status) for session in sessions],
        "package": [session.package for session in sessions],
        "step": [session.step for session in sessions],
        "data": [json.dumps(session.data) for session in sessions],
        "origin": [str(session.origin) for session in sessions],
        "line_id": [session.line_id for session in sessions],
        "line_position": [session.line_position for session in sessions],
        "line_began_at": [session.line_began_at for session in sessions],
        "previous_session_id": [session.previous_session_id for session in sessions],
        "created_at": [session.created_at for session in sessions],
        "expires_at": [session.expires_at for session in sessions],
        "completed_at": [session.completed_at for session in sessions],
        "payment_reference": [session.payment_reference for session in sessions],
    }


def finish_parameters(
    outcomes: Sequence[tuple[Taken, Outcome]], worker: str, celery_task_id: str
) -> dict[str, list[Any] | str]:
    """Arrays for `statements.FINISH_TASKS`."""
    return {
        "id": [taken.task.id for taken, _ in outcomes],
        "state": [str(outcome.state) for _, outcome in outcomes],
        "session_id": [outcome.session_id for _, outcome in outcomes],
        "refusal": [outcome.refusal and str(outcome.refusal) for _, outcome in outcomes],
        "reason": [outcome.reason for _, outcome in outcomes],
        "addressed_status": [outcome.addressed_status and str(outcome.addressed_status) for _, outcome in outcomes],
        "worker": worker,
        "celery_task_id": celery_task_id,
    }
