"""Between the rows of the statements and the values of the rules."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, Final

import orjson

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


def store_parameters(
    changes: Iterable[Change],
    sessions: Iterable[Session],
    outcomes: Iterable[tuple[Taken, Outcome]],
    worker: str,
    celery_task_id: str,
) -> dict[str, str]:
    """Parameters of `statements.STORE`."""
    return {
        "changes": _json(_change_row(change) for change in changes),
        "sessions": _json(_session_row(session) for session in sessions),
        "outcomes": _json(_outcome_row(taken, outcome) for taken, outcome in outcomes),
        "worker": worker,
        "celery_task_id": celery_task_id,
    }


def _json(rows: Iterable[dict[str, Any]]) -> str:
    return orjson.dumps(list(rows)).decode()


def _change_row(change: Change) -> dict[str, Any]:
    session = change.session
    return {
        "id": session.id,
        "was": change.was,
        "status": session.status,
        "completed_at": session.completed_at,
        "payment_reference": session.payment_reference,
    }


def _session_row(session: Session) -> dict[str, Any]:
    # Its data by Python's own JSON, as it was read: numbers keep all their digits.
    return {**{name: getattr(session, name) for name in _PLAIN}, "data": orjson.Fragment(json.dumps(session.data))}


_PLAIN: Final = tuple(field.name for field in fields(Session) if field.name != "data")


def _outcome_row(taken: Taken, outcome: Outcome) -> dict[str, Any]:
    return {
        "id": taken.task.id,
        "state": outcome.state,
        "session_id": outcome.session_id,
        "refusal": outcome.refusal,
        "reason": outcome.reason,
        "addressed_status": outcome.addressed_status,
    }
