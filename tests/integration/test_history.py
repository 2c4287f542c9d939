"""What `make session` finds where a part is gone, pending, or somebody else's."""

from typing import Any

from psycopg import Connection
from sqlalchemy import Engine
from uuid_utils.compat import uuid7

from db.lifecycle import Kind
from tests.factories import accept, make_task
from workers.execution import Executor
from workers.history import find, page


def told(engine: Engine, wanted: Any) -> str:
    """The page of one id."""
    with engine.connect() as connection:
        found = find(connection, wanted)
    assert found
    return page(found, wanted)


def events(said: str) -> list[str]:
    """What happened, a word each."""
    return [line.split()[2] for line in said.partition("What happened (UTC)\n")[2].splitlines() if line[2] == "2"]


def test_of_a_deleted_session_its_line_and_its_tasks_are_told(
    connection: Connection[Any], engine: Engine, executor: Executor
) -> None:
    user = str(uuid7())
    create = make_task(Kind.CREATE, user_id=user, package="silver")
    accept(connection, create)
    executor.execute([create.id], "celery-1")
    renew = make_task(Kind.RENEW, create.session_id, user_id=user, package="gold")
    accept(connection, renew)
    executor.execute([renew.id], "celery-2")
    connection.execute("DELETE FROM checkout_sessions WHERE id = %s", [create.session_id])
    for wanted in (create.session_id, create.id, renew.id):
        said = told(engine, wanted)
        assert f"{create.session_id}               elsewhere" in said
        assert events(said) == ["accepted", "done", "accepted", "done", "began"]
        assert said.count(" <\n") == (wanted != create.session_id)
    connection.execute("DELETE FROM checkout_sessions WHERE user_id = %s", [user])
    said = told(engine, create.session_id)
    assert "Sessions: none (deleted, or not made)" in said
    assert events(said) == ["accepted", "done", "accepted", "done"]


def test_what_is_pending_and_what_a_stranger_asked_is_told(
    connection: Connection[Any], engine: Engine, executor: Executor
) -> None:
    user, stranger = str(uuid7()), str(uuid7())
    create = make_task(Kind.CREATE, user_id=user, package="silver")
    steal = make_task(Kind.RECOVER, create.session_id, user_id=stranger)
    accept(connection, create, request_id="r-1")
    said = told(engine, create.id)
    assert said.splitlines()[-1].split() == ["now", "pending", "T1"]
    accept(connection, steal)
    executor.execute([create.id, steal.id], "celery-3")
    said = told(engine, create.session_id)
    assert f"User {user}, {stranger}" in said
    assert "recover session_unrecoverable" in said
    assert "r-1  here:1 celery-3" in said


def test_of_nothing_nothing_is_told(engine: Engine) -> None:
    with engine.connect() as connection:
        assert find(connection, uuid7()) is None
