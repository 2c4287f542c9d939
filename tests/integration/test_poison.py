"""A task that fails, wherever it fails, spoils nobody else's, is counted, and is given up after a few attempts.

The poison is planted in the database from outside: a trigger that raises for users whose name begins so.
"""

from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID, uuid4

import pytest
from psycopg import Connection
from psycopg.errors import CheckViolation
from sqlalchemy import Engine

from db import statements
from db.engine import is_outage
from db.lifecycle import Kind, Status, Task
from tests.factories import (
    accept,
    accept_parameters,
    add_sessions,
    make_row,
    make_task,
    read_sessions,
    read_tasks,
    states,
)
from tests.integration.conftest import MAX_ATTEMPTS, make_executor
from workers.execution import SUSPECT_RINGS, Executor, TasksFailedError

RAISE = "RAISE EXCEPTION 'poison'"
DIE = "PERFORM pg_terminate_backend(pg_backend_pid())"  # as a task that kills its worker would
PLACES = {
    "where a session changes": ("BEFORE UPDATE ON checkout_sessions", ""),
    "where a session begins": ("BEFORE INSERT ON checkout_sessions", ""),
    "where a task finishes": ("BEFORE UPDATE ON session_tasks", "AND NEW.state = 'SUCCESS'"),
    "at the commit": ("AFTER INSERT ON checkout_sessions DEFERRABLE INITIALLY DEFERRED", ""),
}


@pytest.fixture
def plant(connection: Connection[Any]) -> Iterator[Callable[..., None]]:
    """Plants the poison in one place; taken out again after the test."""
    tables = []

    def plant(place: str, what: str = RAISE) -> None:
        event, condition = PLACES[place]
        kind = "CONSTRAINT TRIGGER" if "DEFERRABLE" in event else "TRIGGER"
        tables.append(event.split()[3])
        connection.execute(
            f"""CREATE OR REPLACE FUNCTION poison() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
                BEGIN IF NEW.user_id LIKE 'poison%' {condition} THEN {what}; END IF; RETURN NEW; END $$"""
        )
        connection.execute(f"CREATE {kind} poison {event} FOR EACH ROW EXECUTE FUNCTION poison()")

    yield plant
    for table in tables:
        connection.execute(f"DROP TRIGGER poison ON {table}")


def crowd(connection: Connection[Any], *poisoned: Task) -> list[Task]:
    """Healthy tasks of users before and after the poisoned in the order of locking, accepted together with those."""
    healthy = [make_task(Kind.CREATE, user_id=f"{name}-{uuid4()}", package="gold") for name in ("a", "b", "y", "z")]
    accept(connection, *healthy[:2], *poisoned, *healthy[2:])
    return healthy


@pytest.fixture
def create(connection: Connection[Any]) -> Task:
    """A create of a poisoned user who has an active session."""
    user = f"poison-{uuid4()}"
    add_sessions(connection, make_row(user))
    return make_task(Kind.CREATE, user_id=user, package="gold")


@pytest.mark.parametrize("place", PLACES)
def test_one_poisoned_task_fails_alone(
    connection: Connection[Any],
    executor: Executor,
    told: list[UUID],
    plant: Callable[..., None],
    create: Task,
    place: str,
) -> None:
    healthy = crowd(connection, create)
    plant(place)
    with pytest.raises(TasksFailedError, match=rf"^{create.id}: \w+$"):
        executor.execute([create.id, *(task.id for task in healthy)], "spoiled")
    assert states(connection, *healthy) == ["SUCCESS"] * 4
    assert sorted(told) == sorted(task.id for task in healthy)
    (row,) = read_tasks(connection, create)
    assert (row["state"], row["attempts"]) == ("PENDING", 1)
    assert [s.status for s in read_sessions(connection, create.user_id)] == [Status.ACTIVE]


@pytest.mark.parametrize("place", PLACES)
def test_a_task_that_keeps_failing_is_given_up_and_the_users_later_ones_go_on(
    connection: Connection[Any],
    executor: Executor,
    told: list[UUID],
    plant: Callable[..., None],
    create: Task,
    place: str,
) -> None:
    later = make_task(Kind.RECOVER, read_sessions(connection, create.user_id)[0].id, user_id=create.user_id)
    accept(connection, create, later)
    plant(place)
    for attempt in range(1, MAX_ATTEMPTS + 1):
        with pytest.raises(TasksFailedError):
            executor.execute([later.id], "again")
        assert [row["attempts"] for row in read_tasks(connection, create, later)] == [attempt, 0]
    if place == "where a task finishes":  # it would hinder the later one, too
        connection.execute("ALTER TABLE session_tasks DISABLE TRIGGER poison")
    executor.execute([later.id], "the last")
    assert states(connection, create, later) == ["gave_up", "SUCCESS"]
    (row, _) = read_tasks(connection, create, later)
    assert (row["result_session_id"], row["reason"]) == (create.session_id, f"{MAX_ATTEMPTS} attempts failed")
    assert told == [create.id, later.id]


def test_one_message_tries_a_user_once_however_many_of_their_tasks_it_names(
    connection: Connection[Any], executor: Executor, plant: Callable[..., None], create: Task
) -> None:
    more = [make_task(Kind.CREATE, user_id=create.user_id, package="gold") for _ in range(2 * MAX_ATTEMPTS)]
    ids = accept(connection, create, *more)
    plant("where a session begins")
    with pytest.raises(TasksFailedError):
        executor.execute(ids, "many")
    assert [row["attempts"] for row in read_tasks(connection, create, *more)] == [1] + [0] * len(more)


def test_a_poisoned_user_is_tried_apart_from_then_on(
    connection: Connection[Any], executor: Executor, plant: Callable[..., None], create: Task
) -> None:
    accept(connection, create)
    plant("where a session begins")
    with pytest.raises(TasksFailedError):
        executor.execute([create.id], "first")
    healthy = crowd(connection)
    with pytest.raises(TasksFailedError):
        executor.execute([create.id, *(task.id for task in healthy)], "second")
    finished = [row["finished_at"] for row in read_tasks(connection, *healthy)]
    assert len(set(finished)) == 1, "the healthy ones went in one transaction"
    assert [row["attempts"] for row in read_tasks(connection, create)] == [2]


def test_what_heals_before_it_is_given_up_is_done(
    connection: Connection[Any], executor: Executor, plant: Callable[..., None], create: Task
) -> None:
    accept(connection, create)
    plant("where a session begins")
    with pytest.raises(TasksFailedError):
        executor.execute([create.id], "sick")
    connection.execute("ALTER TABLE checkout_sessions DISABLE TRIGGER poison")
    assert executor.execute([create.id], "well").finished == 1
    assert states(connection, create) == ["SUCCESS"]


@pytest.mark.parametrize("sign", ["rings", "redelivered"])
def test_a_task_that_kills_whoever_executes_it_is_counted_once_it_is_suspect_and_given_up(
    connection: Connection[Any], executor: Executor, plant: Callable[..., None], create: Task, sign: str
) -> None:
    accept(connection, create)
    plant("where a session begins", DIE)

    def execute(redelivered: bool) -> None:
        with pytest.raises(Exception) as died:  # noqa: PT011
            executor.execute([create.id], "deadly", redelivered)
        assert is_outage(died.value)

    execute(redelivered=False)
    assert [row["attempts"] for row in read_tasks(connection, create)] == [0], "the first time may be an accident"
    if sign == "rings":
        connection.execute("UPDATE session_tasks SET rings = %s WHERE id = %s", (SUSPECT_RINGS, create.id))
    for attempt in range(1, MAX_ATTEMPTS + 1):
        execute(redelivered=sign == "redelivered")
        assert [row["attempts"] for row in read_tasks(connection, create)] == [attempt]
    executor.execute([create.id], "the last")
    assert states(connection, create) == ["gave_up"]


@pytest.mark.parametrize("table", ["session_tasks", "checkout_sessions"])
def test_a_user_whose_rows_someone_locks_spoils_nobody_elses(
    connection: Connection[Any],
    connect: Callable[[], Connection[Any]],
    make_engine: Callable[..., Engine],
    create: Task,
    table: str,
) -> None:
    executor = make_executor(make_engine(lock_timeout="200"))
    payment = make_task(Kind.COMPLETE, create.session_id, user_id=create.user_id, payment_reference=f"pay-{uuid4()}")
    healthy = crowd(connection, create, payment)
    with connect() as other, other.transaction():
        other.execute(f"SELECT FROM {table} WHERE user_id = %s FOR UPDATE", (create.user_id,))
        with pytest.raises(TasksFailedError):
            executor.execute([create.id, *(task.id for task in healthy)], "locked")
        assert states(connection, *healthy) == ["SUCCESS"] * 4
    assert executor.execute([create.id], "free").finished == 2
    assert states(connection, create, payment) == ["SUCCESS", "SUCCESS"]


@pytest.mark.parametrize("payload", ['{"data": [1]}', '{"data": "text"}'])
def test_a_payload_that_no_api_writes_spoils_nobody_elses(
    connection: Connection[Any], executor: Executor, create: Task, payload: str
) -> None:
    healthy = crowd(connection, create)
    connection.execute("UPDATE session_tasks SET payload = %s WHERE id = %s", (payload, create.id))
    ids = [create.id, *(task.id for task in healthy)]
    for _ in range(MAX_ATTEMPTS):
        with pytest.raises(TasksFailedError):
            executor.execute(ids, "malformed")
    assert states(connection, *healthy) == ["SUCCESS"] * 4
    executor.execute(ids, "the last")
    assert states(connection, create) == ["gave_up"]


@pytest.mark.parametrize("payload", [[], "text", 7])
def test_a_payload_that_is_no_object_is_not_accepted(connection: Connection[Any], create: Task, payload: Any) -> None:
    with pytest.raises(CheckViolation, match="ck_session_tasks_payload"):
        connection.execute(statements.ACCEPT, accept_parameters([create], payload=payload))


def test_sessions_that_cannot_be_read_are_an_attempt_too(
    connection: Connection[Any], executor: Executor, create: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    accept(connection, create)
    monkeypatch.setattr(statements, "LOAD", "SELECT 1 / (%(id)s::uuid[] IS NULL)::int")
    for attempt in range(1, MAX_ATTEMPTS + 1):
        with pytest.raises(TasksFailedError):
            executor.execute([create.id], "unreadable")
        assert [row["attempts"] for row in read_tasks(connection, create)] == [attempt]
    executor.execute([create.id], "the last")
    assert states(connection, create) == ["gave_up"]
