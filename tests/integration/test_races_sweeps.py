"""Requests against the sweeps on real connections: what was accepted in time is never lost, what is deleted is gone."""

import random
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from psycopg import Connection
from sqlalchemy import Engine

from db import sweeps
from db.lifecycle import Kind, Session, Status, Task
from tests.factories import (
    LIMITS,
    accept,
    add_sessions,
    make_row,
    make_task,
    read_sessions,
    read_tasks,
    states,
    uuid7_of,
)
from tests.integration.conftest import make_executor
from tests.integration.racing import RACERS, Race, asking, executing
from tests.soundness import assert_sound
from tests.stack import eventually
from workers.execution import Executor

ROUNDS = 40
OLD = LIMITS.retention + timedelta(minutes=1)

Step = Callable[[Executor, Connection[Any]], Any]


@pytest.fixture
def race(make_engine: Callable[..., Engine], connect: Callable[[], Connection[Any]], engine: Engine) -> Iterator[Race]:
    """A race; what must hold holds after it."""
    race = Race([make_executor(make_engine()) for _ in range(RACERS)], [connect() for _ in range(RACERS)])
    yield race
    race.pool.shutdown()
    assert_sound(engine, race.connections[0], whole=False)


def sweeping(sweep: Callable[..., Any], *arguments: Any, times: int = 1) -> Step:
    """Run a sweep on the racer's engine."""

    def step(executor: Executor, _: Connection[Any]) -> None:
        for _ in range(times):
            with executor.engine.begin() as connection:
                sweep(connection, 1_000, *arguments)

    return step


EXPIRE = sweeping(sweeps.expire, times=3)
DELETE = sweeping(sweeps.delete, LIMITS.retention)
RING = sweeping(sweeps.ring_again, timedelta(seconds=2))
PURGE = sweeping(sweeps.purge_tasks, timedelta(days=7))


def an_old(connection: Connection[Any], age: timedelta = OLD) -> Session:
    """A new user's expired session whose id tells its age."""
    session = make_row(f"racer-{uuid4()}", Status.EXPIRED, age=age)
    session = make_row(
        session.user_id, Status.EXPIRED, age=age, id=uuid7_of(session.created_at, random.getrandbits(60))
    )
    add_sessions(connection, session)
    return session


def a_completion(session: Session) -> Task:
    return make_task(
        Kind.COMPLETE, session.id, user_id=session.user_id, payment_reference=f"pay-{session.id}"
    )  # fmt: skip


def test_completions_around_the_instant_of_expiry(race: Race, connection: Connection[Any]) -> None:
    met = Counter()
    for number in range(2 * ROUNDS):
        left = timedelta(milliseconds=2 ** (number % 13) - 2)  # until it expires: from -1 ms to 4 s
        session = make_row(f"racer-{uuid4()}", age=LIMITS.ttl - left)
        add_sessions(connection, session)
        task = a_completion(session)
        race.at_once(asking(task), EXPIRE, EXPIRE)
        (row,) = read_tasks(connection, task)
        (after,) = read_sessions(connection, session.user_id)
        in_time = row["accepted_at"] < session.expires_at
        assert (states(connection, task), after.status) == (
            (["SUCCESS"], Status.COMPLETED) if in_time else (["session_expired"], Status.EXPIRED)
        )
        met[in_time] += 1
    assert met.keys() == {True, False}


def test_a_completion_in_time_and_late_sweeps(race: Race, connection: Connection[Any]) -> None:
    for _ in range(ROUNDS):
        session = make_row(f"racer-{uuid4()}", age=OLD)
        add_sessions(connection, session)
        task = a_completion(session)
        accept(connection, task)
        connection.execute(
            "UPDATE session_tasks SET accepted_at = %s, due_at = now() WHERE id = %s", (session.created_at, task.id)
        )
        race.at_once(executing(task), EXPIRE, DELETE, RING)
        assert states(connection, task) == ["SUCCESS"]
        assert [s.status for s in read_sessions(connection, session.user_id)] == [Status.COMPLETED]


def test_a_recovery_and_the_deletion_of_its_session(race: Race, connection: Connection[Any]) -> None:
    for _ in range(2 * ROUNDS):
        session = an_old(connection)
        task = make_task(Kind.RECOVER, session.id, user_id=session.user_id)
        steps = [asking(task), DELETE, EXPIRE, DELETE]
        random.shuffle(steps)
        race.at_once(*steps)
        (row,) = read_tasks(connection, task)
        left = read_sessions(connection, session.user_id)
        if row["state"] == "SUCCESS":
            assert [(s.status, s.previous_session_id) for s in left][-1] == (Status.ACTIVE, session.id)
        else:
            assert (row["refusal"], row["reason"], left) == ("session_unrecoverable", "deleted", [])


def test_an_accept_waits_for_a_deletion_under_way(
    race: Race, connection: Connection[Any], connect: Callable[[], Connection[Any]]
) -> None:
    session = an_old(connection)
    task = make_task(Kind.RECOVER, session.id, user_id=session.user_id)
    acceptor = connect()
    with ThreadPoolExecutor() as pool:
        with race.executors[0].engine.begin() as deleting:
            assert sweeps.delete(deleting, 1_000, LIMITS.retention) >= 1
            accepted = pool.submit(accept, acceptor, task)
            waits = "SELECT wait_event_type = 'Lock' FROM pg_stat_activity WHERE pid = %s"
            pid = acceptor.info.backend_pid
            eventually(lambda: connection.execute(waits, [pid]).fetchone()[0])
        assert accepted.result(60) == [task.id]
    race.executors[1].execute([task.id], "late")
    assert states(connection, task) == ["session_unrecoverable"]


def test_a_deletion_passes_over_what_is_being_addressed(
    race: Race, connection: Connection[Any], connect: Callable[[], Connection[Any]]
) -> None:
    session = an_old(connection)
    task = make_task(Kind.RECOVER, session.id, user_id=session.user_id)
    with connect() as acceptor, acceptor.transaction():
        accept(acceptor, task)
        DELETE(race.executors[0], connection)
        assert read_sessions(connection, session.user_id) == [session]
    DELETE(race.executors[0], connection)
    assert read_sessions(connection, session.user_id) == [session]
    race.executors[0].execute([task.id], "at last")
    assert states(connection, task) == ["SUCCESS"]


def test_everything_at_once(race: Race, connection: Connection[Any]) -> None:
    chance = random.Random(1)
    for _ in range(ROUNDS // 2):
        sessions = [an_old(connection, chance.choice([OLD, timedelta(hours=25)])) for _ in range(4)]
        sessions += [make_row(f"racer-{uuid4()}", age=chance.choice([OLD, timedelta(hours=25)])) for _ in range(4)]
        add_sessions(connection, *sessions[4:])
        tasks = [
            make_task(chance.choice([Kind.RECOVER, Kind.RENEW]), s.id, user_id=s.user_id, package="gold")
            for s in sessions
            for _ in range(2)
        ]
        sweep = chance.choice([EXPIRE, DELETE, RING, PURGE])
        race.at_once(asking(*tasks[::2]), asking(*tasks[1::2]), sweep, chance.choice([EXPIRE, DELETE]))
        for row in read_tasks(connection, *tasks):
            assert (row["state"], row["attempts"]) != ("PENDING", 0)
            assert row["refusal"] in (None, "session_unrecoverable")
        for session in sessions:
            active = [s for s in read_sessions(connection, session.user_id) if s.status is Status.ACTIVE]
            answered = {row["state"] for row in read_tasks(connection, *tasks) if row["user_id"] == session.user_id}
            assert len(active) == ("SUCCESS" in answered)
