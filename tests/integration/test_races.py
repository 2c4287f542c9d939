"""Two requests of one user at the same time, hundreds of times on real connections: neither fails, nothing is lost."""

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

from db.engine import transaction
from db.lifecycle import Kind, Session, Status
from tests.factories import accept, add_sessions, make_row, make_task, read_sessions, read_tasks, states
from tests.integration.conftest import make_executor
from tests.integration.racing import RACERS, Race, asking, executing
from tests.soundness import assert_sound
from tests.stack import eventually
from workers.execution import take

ROUNDS = 60
CREATE, RENEW, RECOVER, COMPLETE = Kind.CREATE, Kind.RENEW, Kind.RECOVER, Kind.COMPLETE


@pytest.fixture
def race(make_engine: Callable[..., Engine], connect: Callable[[], Connection[Any]], engine: Engine) -> Iterator[Race]:
    """A race; what must hold holds after it."""
    race = Race([make_executor(make_engine()) for _ in range(RACERS)], [connect() for _ in range(RACERS)])
    yield race
    race.pool.shutdown()
    assert_sound(engine, race.connections[0])


def new_user() -> str:
    return f"racer-{uuid4()}"


def an_active(connection: Connection[Any], **values: Any) -> Session:
    """A new user's active session."""
    session = make_row(new_user(), **values)
    add_sessions(connection, session)
    return session


def now(connection: Connection[Any], user: str) -> Counter[Status]:
    """How many sessions of each status the user has."""
    return Counter(session.status for session in read_sessions(connection, user))


@pytest.mark.parametrize("accepted", ["before", "meanwhile"])
def test_create_create(race: Race, connection: Connection[Any], accepted: str) -> None:
    for _ in range(ROUNDS // 2):
        user = new_user()
        tasks = [make_task(CREATE, user_id=user, package="gold") for _ in range(RACERS)]
        if accepted == "before":
            accept(connection, *tasks)
        race.at_once(*map(executing if accepted == "before" else asking, tasks))
        assert states(connection, *tasks) == ["SUCCESS"] * RACERS
        assert now(connection, user) == {Status.ACTIVE: 1, Status.INVALIDATED: RACERS - 1}
        (active,) = [s for s in read_sessions(connection, user) if s.status is Status.ACTIVE]
        assert accepted == "meanwhile" or active.id == tasks[-1].session_id, "the last accepted wins"


def test_renew_renew(race: Race, connection: Connection[Any]) -> None:
    for _ in range(ROUNDS):
        session = an_active(connection)
        tasks = [make_task(RENEW, session.id, user_id=session.user_id, package="gold") for _ in range(2)]
        race.at_once(*map(asking, tasks))
        assert states(connection, *tasks) == ["SUCCESS"] * 2
        line = read_sessions(connection, session.user_id)
        assert [s.status for s in line] == [Status.INVALIDATED, Status.INVALIDATED, Status.ACTIVE]
        assert {s.line_id for s in line} == {session.id}


@pytest.mark.parametrize("state", ["overdue", "expired"])
def test_recover_recover(race: Race, connection: Connection[Any], state: str) -> None:
    for _ in range(ROUNDS // 2):
        status = Status.ACTIVE if state == "overdue" else Status.EXPIRED
        session = an_active(connection, status=status, age=timedelta(hours=25))
        tasks = [make_task(RECOVER, session.id, user_id=session.user_id) for _ in range(RACERS)]
        race.at_once(*map(asking, tasks))
        assert states(connection, *tasks) == ["SUCCESS"] * RACERS
        assert now(connection, session.user_id) == {Status.EXPIRED: 1, Status.ACTIVE: 1}
        assert len({row["result_session_id"] for row in read_tasks(connection, *tasks)}) == 1


def test_renew_complete(race: Race, connection: Connection[Any]) -> None:
    met = set()
    for _ in range(ROUNDS):
        session = an_active(connection)
        renew = make_task(RENEW, session.id, user_id=session.user_id, package="gold")
        pay = make_task(COMPLETE, session.id, user_id=session.user_id, payment_reference=f"pay-{session.id}")
        race.at_once(*random.sample([asking(renew), asking(pay)], 2))
        outcome = tuple(states(connection, renew, pay))
        met.add(outcome)
        line = [s.status for s in read_sessions(connection, session.user_id)]
        assert (outcome, line) in [
            (("already_completed", "SUCCESS"), [Status.COMPLETED]),
            (("SUCCESS", "SUCCESS"), [Status.COMPLETED, Status.INVALIDATED]),
        ]
    assert len(met) == 2, "one of them has always been first"


@pytest.mark.parametrize("same", [True, False])
@pytest.mark.parametrize("accepted", ["before", "meanwhile"])
def test_complete_complete_of_one_session(race: Race, connection: Connection[Any], accepted: str, same: bool) -> None:
    for _ in range(ROUNDS // 2):
        session = an_active(connection)
        references = [f"pay-{session.id}-{0 if same else number}" for number in range(2)]
        tasks = [make_task(COMPLETE, session.id, user_id=session.user_id, payment_reference=r) for r in references]
        if accepted == "before":
            accept(connection, *tasks)
        race.at_once(*map(executing if accepted == "before" else asking, tasks))
        told = states(connection, *tasks)
        assert sorted(told) == ["SUCCESS", "SUCCESS" if same else "already_completed"]
        (after,) = read_sessions(connection, session.user_id)
        assert (after.status, after.payment_reference) == (Status.COMPLETED, references[told.index("SUCCESS")])
        assert accepted == "meanwhile" or told[0] == "SUCCESS", "the first accepted wins"


def test_two_users_complete_with_one_reference(race: Race, connection: Connection[Any]) -> None:
    for _ in range(ROUNDS):
        sessions = [an_active(connection) for _ in range(2)]
        tasks = [
            make_task(COMPLETE, s.id, user_id=s.user_id, payment_reference=f"pay-{sessions[0].id}") for s in sessions
        ]
        race.at_once(*map(asking, tasks))
        assert sorted(states(connection, *tasks)) == ["SUCCESS", "payment_reference_used"]


def test_two_pairs_of_users_complete_with_two_references_crosswise(race: Race, connection: Connection[Any]) -> None:
    for _ in range(ROUNDS // 3):
        sessions = [an_active(connection) for _ in range(4)]
        references = [f"pay-{sessions[0].id}-{n}" for n in (0, 1, 1, 0)]
        tasks = [
            make_task(COMPLETE, s.id, user_id=s.user_id, payment_reference=r)
            for s, r in zip(sessions, references, strict=True)
        ]
        race.at_once(asking(*tasks[:2]), asking(*tasks[2:]))
        assert sorted(states(connection, *tasks)) == ["SUCCESS"] * 2 + ["payment_reference_used"] * 2


def test_overlapping_messages_of_several_executors(race: Race, connection: Connection[Any]) -> None:
    for _ in range(ROUNDS // 3):
        users = [new_user() for _ in range(6)]
        creates = {user: make_task(CREATE, user_id=user, package="silver") for user in users}
        later = [
            task
            for user in users
            for session_id in [creates[user].session_id]
            for task in (
                make_task(RENEW, session_id, user_id=user, package="gold"),
                make_task(RECOVER, session_id, user_id=user),
                make_task(COMPLETE, session_id, user_id=user, payment_reference=f"pay-{session_id}"),
            )
        ]
        tasks = [*creates.values(), *later]
        accept(connection, *tasks)
        race.at_once(*(executing(*tasks[n::2], *tasks[::3]) for n in (0, 1, 0, 1)))
        assert states(connection, *tasks) == ["SUCCESS"] * len(tasks)
        for user in users:
            assert [s.status for s in read_sessions(connection, user)] == [Status.COMPLETED, Status.INVALIDATED]
        rows = read_tasks(connection, *tasks)
        assert {row["attempts"] for row in rows} == {0}, "nobody stood in anybody's way"


def test_who_comes_second_waits_for_the_first_and_then_finds_nothing_to_do(
    race: Race, connection: Connection[Any], engine: Engine
) -> None:
    user = new_user()
    first, later = (make_task(CREATE, user_id=user, package="gold") for _ in range(2))
    accept(connection, first, later)
    with ThreadPoolExecutor() as pool:
        with transaction(engine) as under_way:
            assert [taken.task.id for taken in take(under_way, [later.id])[0]] == [first.id, later.id]
            second = pool.submit(race.executors[0].execute, [later.id], "second")
            waits = (
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
            )
            eventually(lambda: connection.execute(waits).fetchone()[0] == 1)
        assert second.result(60).finished == 2, "the first gave up: it did nothing"
    assert race.executors[1].execute([first.id], "third").finished == 0
