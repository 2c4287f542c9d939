"""The sweeps at their boundaries: what is due and not a moment less, and nothing of a user who waits."""

from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from psycopg import Connection
from sqlalchemy import Engine

from db import sweeps
from db.lifecycle import Kind, Session, Status
from tests.factories import LIMITS, accept, add_sessions, make_row, make_task, read_sessions, read_tasks

MOMENT = timedelta(microseconds=1)
MINUTE = timedelta(minutes=1)  # longer than any test takes
MANY = 10_000


@pytest.fixture
def url(database_url: str) -> str:
    """A database of the test's own: the sweeps look at all of it."""
    return database_url


def expire(engine: Engine, limit: int = MANY) -> int:
    with engine.begin() as connection:
        return sweeps.expire(connection, limit)


def delete(engine: Engine, limit: int = MANY) -> int:
    with engine.begin() as connection:
        return sweeps.delete(connection, limit, LIMITS.retention)


def statuses(connection: Connection[Any], *sessions: Session) -> list[str]:
    """What each session is now; "gone" if it was deleted."""
    now = {session.id: str(session.status) for session in read_sessions(connection)}
    return [now.get(session.id, "gone") for session in sessions]


def one_each(*ages: timedelta, status: Status = Status.ACTIVE) -> list[Session]:
    """A session of each age, each of a user of its own."""
    return [make_row(f"user-{uuid4()}", status, age=age) for age in ages]


def test_expiry_marks_what_is_over_24_hours_and_leaves_what_is_under(
    connection: Connection[Any], engine: Engine
) -> None:
    over, under = one_each(LIMITS.ttl + MINUTE, LIMITS.ttl - MINUTE)
    others = [one_each(LIMITS.ttl + MINUTE, status=status)[0] for status in Status if status is not Status.ACTIVE]
    add_sessions(connection, over, under, *others)
    assert expire(engine) == 1
    assert statuses(connection, over, under, *others) == ["expired", "active", "completed", "expired", "invalidated"]
    assert expire(engine) == 0


def test_deletion_takes_what_is_over_7_days_and_leaves_what_is_under_and_what_is_completed(
    connection: Connection[Any], engine: Engine
) -> None:
    old = [one_each(LIMITS.retention + MINUTE, status=status)[0] for status in Status]
    young = [one_each(LIMITS.retention - MINUTE, status=status)[0] for status in Status]
    add_sessions(connection, *old, *young)
    assert delete(engine) == 3
    assert statuses(connection, *old) == ["gone", "completed", "gone", "gone"]
    assert statuses(connection, *young) == [str(status) for status in Status]
    assert delete(engine) == 0


@pytest.mark.parametrize("past", [-MOMENT, timedelta(), MOMENT])
def test_both_sweeps_draw_the_line_at_the_very_instant(
    connection: Connection[Any], engine: Engine, past: timedelta
) -> None:
    one, other = make_row(f"user-{uuid4()}"), make_row(f"user-{uuid4()}", Status.EXPIRED)
    add_sessions(connection, one, other)
    with engine.begin() as swept:  # one transaction has one now
        now = "now() - CAST(:past AS interval)"
        parameters = {"past": past, "retention": LIMITS.retention, "one": one.id, "other": other.id}
        for update in (
            f"UPDATE checkout_sessions SET expires_at = {now} WHERE id = :one",
            f"UPDATE checkout_sessions SET created_at = {now} - CAST(:retention AS interval) WHERE id = :other",
        ):
            swept.execute(sweeps.text(update), parameters)
        due = int(past >= timedelta())
        assert (sweeps.expire(swept, MANY), sweeps.delete(swept, MANY, LIMITS.retention)) == (due, due)


def test_sessions_of_a_user_with_a_pending_task_are_left_alone(connection: Connection[Any], engine: Engine) -> None:
    overdue, old = make_row("waits"), make_row("waits", Status.INVALIDATED, age=LIMITS.retention + MINUTE)
    overdue = make_row("waits", age=LIMITS.ttl + MINUTE)
    others = [make_row("other", s.status, age=LIMITS.retention + MINUTE) for s in (overdue, old)]
    add_sessions(connection, overdue, old, *others)
    task = make_task(Kind.CREATE, user_id="waits", package="gold")  # it addresses neither
    accept(connection, task)
    assert (expire(engine), delete(engine)) == (1, 2)
    assert statuses(connection, overdue, old) == ["active", "invalidated"]
    connection.execute("DELETE FROM session_tasks")
    assert (expire(engine), delete(engine)) == (1, 1)
    assert statuses(connection, overdue, old) == ["expired", "gone"]


def test_a_task_that_comes_while_sessions_are_deleted_at_once_keeps_its_user_s(
    connection: Connection[Any], engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    hers, his = one_each(LIMITS.retention + MINUTE, LIMITS.retention + MINUTE, status=Status.EXPIRED)
    add_sessions(connection, hers, his)
    looks: list[int] = []
    any_pending = sweeps._any_pending

    def look(sweep: Any) -> bool:
        looks.append(sweep.execute(sweeps.text("SELECT count(*) FROM checkout_sessions")).scalar_one())
        if len(looks) == 2:  # she asked before the lock, too late for the statement that took it
            accept(connection, make_task(Kind.CREATE, user_id=hers.user_id, package="gold"))
        return any_pending(sweep)

    monkeypatch.setattr(sweeps, "_any_pending", look)
    assert delete(engine) == 1
    assert looks == [2, 0]
    assert statuses(connection, hers, his) == [Status.EXPIRED, "gone"]
    counted = connection.execute("SELECT sum(lines_begun) FROM daily_counts").fetchone()
    assert counted == (1,)


def test_a_sweep_takes_as_many_as_it_may_and_the_oldest_first(connection: Connection[Any], engine: Engine) -> None:
    sessions = one_each(*(LIMITS.ttl + n * MINUTE for n in range(1, 6)))
    add_sessions(connection, *sessions)
    assert expire(engine, limit=2) == 2
    assert statuses(connection, *sessions) == ["active"] * 3 + ["expired"] * 2
    assert [expire(engine, limit=2) for _ in range(3)] == [2, 1, 0]
    connection.execute("UPDATE checkout_sessions SET created_at = created_at - interval '7 days'")
    assert [delete(engine, limit=2) for _ in range(4)] == [2, 2, 1, 0]


def test_a_sweep_passes_over_what_is_locked(connection: Connection[Any], engine: Engine) -> None:
    locked, free = one_each(LIMITS.retention + MINUTE, LIMITS.retention + MINUTE)
    add_sessions(connection, locked, free)
    with connection.transaction():
        connection.execute("SELECT FROM checkout_sessions WHERE id = %s FOR UPDATE", [locked.id])
        assert (expire(engine), delete(engine)) == (1, 1)
    assert statuses(connection, locked, free) == ["active", "gone"]


def test_each_ring_doubles_the_wait_for_the_next_up_to_16_times(connection: Connection[Any], engine: Engine) -> None:
    task = make_task(Kind.RENEW, package="gold")
    accept(connection, task, patience=3600)
    interval = timedelta(seconds=2)

    waits = []
    for rings in range(2, 9):
        with engine.begin() as swept:
            assert sweeps.ring_again(swept, MANY, interval) == [], "it is not due"
        connection.execute("UPDATE session_tasks SET due_at = now() WHERE id = %s", [task.id])
        with engine.begin() as swept:
            now = swept.execute(sweeps.text("SELECT now()")).scalar_one()
            assert sweeps.ring_again(swept, MANY, interval) == [(task.id, Kind.RENEW)]
        (row,) = read_tasks(connection, task)
        assert row["rings"] == rings
        waits.append((row["due_at"] - now) / interval)
    assert waits == [2, 4, 8, 16, 16, 16, 16]


def test_what_is_finished_or_locked_is_not_rung_and_the_longest_due_comes_first(
    connection: Connection[Any], engine: Engine
) -> None:
    tasks = [make_task(Kind.CREATE, user_id=f"user-{n}", package="gold") for n in range(5)]
    accept(connection, *tasks, patience=0)
    finished, locked, *due = tasks
    connection.execute(
        "UPDATE session_tasks SET state = 'SUCCESS', finished_at = now(), result_session_id = session_id WHERE id = %s",
        [finished.id],
    )
    for age, task in enumerate(due):
        connection.execute("UPDATE session_tasks SET due_at = due_at - %s WHERE id = %s", (age * MINUTE, task.id))
    with connection.transaction(), engine.begin() as swept:
        connection.execute("SELECT FROM session_tasks WHERE id = %s FOR NO KEY UPDATE", [locked.id])
        assert {task_id for task_id, _ in sweeps.ring_again(swept, 2, MINUTE)} == {due[2].id, due[1].id}
        assert {task_id for task_id, _ in sweeps.ring_again(swept, 2, MINUTE)} == {due[0].id}
