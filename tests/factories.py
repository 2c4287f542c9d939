"""Makes sessions and tasks: values for the rules, rows for the database. What a test does not name is ordinary."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any
from uuid import UUID

from psycopg import Connection
from psycopg.rows import dict_row
from uuid_utils.compat import uuid7

from db import statements
from db.lifecycle import Kind, Limits, Origin, Session, Status, Task
from workers.rows import session_of, store_parameters

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
LIMITS = Limits(ttl=timedelta(hours=24), retention=timedelta(days=7))

_seq = count(1)
_COLUMNS = (
    "id, user_id, status, package, step, data, origin, line_id, line_position, line_began_at, previous_session_id,"
    " created_at, expires_at, completed_at, payment_reference"
)


def uuid7_of(made: datetime, random: int = 0) -> UUID:
    """A UUIDv7 made at that time."""
    milliseconds = (made - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)
    return UUID(int=milliseconds << 80 | 7 << 76 | 0b10 << 62 | random)


def make_session(
    user_id: str = "ann",
    status: Status = Status.ACTIVE,
    age: timedelta = timedelta(hours=1),
    now: datetime = NOW,
    **values: Any,
) -> Session:
    """The first session of a line, `age` old; a completed one has been paid by a reference of its own."""
    session_id = values.pop("id", None) or uuid7()
    created_at = now - age
    paid = status is Status.COMPLETED
    ordinary: dict[str, Any] = {
        "package": "silver",
        "step": "packages",
        "data": {"seats": 2},
        "origin": Origin.CREATED,
        "line_id": session_id,
        "line_position": 0,
        "line_began_at": created_at,
        "previous_session_id": None,
        "created_at": created_at,
        "expires_at": created_at + LIMITS.ttl,
        "completed_at": created_at + timedelta(minutes=5) if paid else None,
        "payment_reference": f"paid-{session_id}" if paid else None,
    }
    return Session(id=session_id, user_id=user_id, status=status, **ordinary | values)


def make_row(user_id: str = "ann", status: Status = Status.ACTIVE, **values: Any) -> Session:
    """`make_session` by the clock on the wall, for a real database."""
    return make_session(user_id, status, now=datetime.now(UTC), **values)


def make_next(before: Session, status: Status = Status.ACTIVE, **values: Any) -> Session:
    """The session that a renewal of `before` made."""
    values = {"now": before.created_at + timedelta(minutes=10), "age": timedelta()} | values
    later = make_session(before.user_id, status, **values)
    return replace(
        later,
        origin=Origin.RENEWED,
        line_id=before.line_id,
        line_position=before.line_position + 1,
        line_began_at=before.line_began_at,
        previous_session_id=before.id,
    )


def make_task(kind: Kind, session_id: UUID | None = None, accepted_at: datetime = NOW, **values: Any) -> Task:
    """An accepted request; a create brings the id of the session to be."""
    return Task(
        id=uuid7(),
        seq=next(_seq),
        kind=kind,
        user_id=values.pop("user_id", "ann"),
        session_id=session_id or uuid7(),
        accepted_at=accepted_at,
        **values,
    )


def payload_of(task: Task) -> dict[str, Any]:
    """What the API keeps of a request."""
    payload = {"package": task.package, "step": task.step, "data": task.data or None}
    return {name: value for name, value in {**payload, "payment_reference": task.payment_reference}.items() if value}


def accept_parameters(tasks: Iterable[Task], patience: float = 3600, **columns: Any) -> dict[str, Any]:
    """Parameters of `statements.ACCEPT`."""
    keys: Mapping[str, Any] = {"idempotency_key": None, "request_hash": None, "request_id": None, **columns}
    tasks = list(tasks)
    rows = [
        {
            "n": n,
            "id": str(task.id),
            "kind": str(task.kind),
            "user_id": task.user_id,
            "session_id": str(task.session_id),
            "payload": payload_of(task),
            **keys,
        }
        for n, task in enumerate(tasks)
    ]
    return {
        "tasks": json.dumps(rows),
        "addressed": sorted({task.session_id for task in tasks if task.kind is not Kind.CREATE}),
        "patience": patience,
    }


def accept(connection: Connection[Any], *tasks: Task, **columns: Any) -> list[UUID]:
    """Accept as the API does; returns the ids of those that are new."""
    return [row[0] for row in connection.execute(statements.ACCEPT, accept_parameters(tasks, **columns))]


def add_sessions(connection: Connection[Any], *sessions: Session) -> None:
    """Write rows as they are."""
    connection.execute(statements.STORE, store_parameters((), sessions, (), "here:1", "celery-1"))


def read_sessions(connection: Connection[Any], *user_ids: str) -> list[Session]:
    """These users' sessions, or all; line by line, oldest first."""
    rows = connection.execute(
        f"SELECT {_COLUMNS} FROM checkout_sessions WHERE user_id = ANY(%s) OR %s ORDER BY line_id, line_position",
        (list(user_ids), not user_ids),
    )
    return [session_of(row) for row in rows]


def read_tasks(connection: Connection[Any], *tasks: Task) -> list[dict[str, Any]]:
    """The rows of these tasks, or all, in order of acceptance."""
    cursor = connection.cursor(row_factory=dict_row)
    ids = [task.id for task in tasks]
    query = "SELECT * FROM session_tasks WHERE id = ANY(%s) OR %s ORDER BY seq"
    return cursor.execute(query, (ids, not ids)).fetchall()


def states(connection: Connection[Any], *tasks: Task) -> list[str]:
    """What became of these tasks, in the order given: `PENDING`, `SUCCESS` or the refusal."""
    rows = {row["id"]: row["refusal"] or row["state"] for row in read_tasks(connection, *tasks)}
    return [rows[task.id] for task in tasks]
