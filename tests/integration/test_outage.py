"""Postgres goes away under the executor and the maintenance: they say so, nothing is done, and they heal."""

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg import Connection
from sqlalchemy import Engine

from db.engine import is_outage, sync_engine
from db.lifecycle import Kind
from db.settings import DatabaseSettings
from local.servers import EmbeddedPostgres
from tests.factories import accept, make_task, states
from tests.integration.conftest import libpq, make_executor
from tests.stack import eventually
from workers.execution import Executor


@pytest.fixture(scope="module")
def mortal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    """A Postgres that may be stopped."""
    with EmbeddedPostgres(tmp_path_factory.mktemp("mortal")) as server:
        yield server


@pytest.fixture(scope="module")
def url(mortal: EmbeddedPostgres) -> str:
    """Its database, migrated."""
    from db.migrate import main  # reads the environment

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DATABASE_URL", mortal.url)
        assert main(["up"]) is None
    return mortal.url


@pytest.fixture
def engine(url: str) -> Iterator[Engine]:
    """An engine as a worker has one."""
    engine = sync_engine(DatabaseSettings(database_url=url), "test")
    yield engine
    engine.dispose()


@pytest.fixture
def mortal_executor(engine: Engine) -> Executor:
    """An executor that has been at work."""
    executor = make_executor(engine)
    executor.execute([make_task(Kind.CREATE).id], "warm")
    return executor


def open_to(url: str) -> Connection[Any]:
    """A connection, as soon as there can be one."""

    def attempt() -> Connection[Any] | None:
        try:
            return psycopg.connect(libpq(url), autocommit=True)
        except psycopg.OperationalError:
            return None

    return eventually(attempt)


def healed(executor: Executor, task_id: Any) -> bool:
    """Whether the task can be executed: the connections that died under the executor are replaced one by one."""
    try:
        executor.execute([task_id], "again")
    except Exception as error:
        if not is_outage(error):
            raise
        return False
    return True


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_an_executor_outlives_its_postgres(
    mortal: EmbeddedPostgres, url: str, mortal_executor: Executor, how: str
) -> None:
    task = make_task(Kind.CREATE, user_id=how, package="gold")
    with open_to(url) as connection:
        accept(connection, task)
    getattr(mortal, how)()
    for _ in range(3):
        with pytest.raises(Exception) as gone:  # noqa: PT011
            mortal_executor.execute([task.id], "down")
        assert is_outage(gone.value)
    mortal.start()
    with open_to(url) as connection:
        assert states(connection, task) == ["PENDING"]
        eventually(lambda: healed(mortal_executor, task.id))
        assert states(connection, task) == ["SUCCESS"]


def test_a_connection_that_died_while_idle_costs_one_execution(url: str, mortal_executor: Executor) -> None:
    task = make_task(Kind.CREATE, user_id="idle", package="gold")
    with open_to(url) as connection:
        accept(connection, task)
        ended = connection.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE application_name LIKE '% test'"
        ).fetchall()
        assert ended == [(True,)]
        with pytest.raises(Exception) as gone:  # noqa: PT011
            mortal_executor.execute([task.id], "first")
        assert is_outage(gone.value)
        assert mortal_executor.execute([task.id], "second").finished == 1
        assert states(connection, task) == ["SUCCESS"]
