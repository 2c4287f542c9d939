"""The accept: one statement that is the order of all that follows, and that may be repeated."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from psycopg import Connection

from db.lifecycle import Kind, Status
from db.statements import ACCEPTED_BEFORE
from tests.factories import LIMITS, accept, add_sessions, make_row, make_task, read_sessions, read_tasks


@pytest.fixture
def user() -> str:
    """A user that no other test has."""
    return f"user-{uuid4()}"


def test_the_order_of_acceptance_is_the_order_given(connection: Connection[Any], user: str) -> None:
    tasks = [make_task(Kind.CREATE, user_id=user, package=str(n)) for n in range(300)]
    tasks.sort(key=lambda task: hash(task.id))
    assert accept(connection, *tasks) == [task.id for task in tasks]
    assert [row["id"] for row in read_tasks(connection, *tasks)] == [task.id for task in tasks]


def test_an_accept_that_is_repeated_after_a_lost_answer_accepts_once(connection: Connection[Any], user: str) -> None:
    first, second = (make_task(Kind.CREATE, user_id=user, package="gold") for _ in range(2))
    assert accept(connection, first) == [first.id]
    before = read_tasks(connection, first)
    assert accept(connection, first, second) == [second.id]
    assert read_tasks(connection, first) == before


def test_a_key_stands_for_one_task_of_one_user(connection: Connection[Any], user: str) -> None:
    first, again, other = (make_task(Kind.CREATE, user_id=user + who, package="gold") for who in ("", "", "-2"))
    assert accept(connection, first, idempotency_key="key", request_hash="hash") == [first.id]
    assert accept(connection, again, other, idempotency_key="key", request_hash="hash") == [other.id]
    keys = {"id": [again.id], "user_id": [user], "idempotency_key": ["key"]}
    rows = connection.execute(ACCEPTED_BEFORE, keys).fetchall()
    assert [(row[0], row[2:]) for row in rows] == [
        (first.id, (first.session_id, "PENDING", user, "key", "hash")),
    ]


def test_the_first_of_two_with_one_key_in_one_batch_is_accepted(connection: Connection[Any], user: str) -> None:
    first, second = (make_task(Kind.CREATE, user_id=user, package="gold") for _ in range(2))
    assert accept(connection, first, second, idempotency_key="key") == [first.id]


def test_a_task_is_due_again_once_the_patience_is_over(connection: Connection[Any], user: str) -> None:
    task = make_task(Kind.CREATE, user_id=user, package="gold")
    accept(connection, task, patience=7.5)
    (row,) = read_tasks(connection, task)
    assert row["due_at"] - row["accepted_at"] == timedelta(seconds=7.5)
    assert (row["rings"], row["attempts"], row["state"]) == (1, 0, "PENDING")


@pytest.mark.parametrize("kind", [Kind.RENEW, Kind.RECOVER, Kind.COMPLETE])
def test_a_session_that_is_being_addressed_is_locked_against_deletion_and_nothing_else(
    connection: Connection[Any], connect: Callable[[], Connection[Any]], user: str, kind: Kind
) -> None:
    session = make_row(user, Status.EXPIRED, age=LIMITS.retention)
    add_sessions(connection, session)
    skip = "SELECT id FROM checkout_sessions WHERE user_id = %s FOR {} SKIP LOCKED"
    with connect() as other, other.transaction():
        accept(other, make_task(kind, session.id, user_id=user, package="gold", payment_reference=f"pay-{user}"))
        assert connection.execute(skip.format("UPDATE"), [user]).fetchall() == []
        assert connection.execute(skip.format("NO KEY UPDATE"), [user]).fetchall() == [(session.id,)]
    assert read_sessions(connection, user) == [session]
