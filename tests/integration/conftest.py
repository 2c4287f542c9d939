"""The real Postgres, and executors on it in this process."""

import itertools
import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any
from uuid import UUID

import psycopg
import pytest
import structlog
from psycopg import Connection
from sqlalchemy import Engine

from db.access import Role
from db.engine import sync_engine
from db.settings import DatabaseSettings
from local.servers import EmbeddedPostgres
from tests.conftest import create_database
from tests.factories import LIMITS
from workers.execution import Executor

MAX_ATTEMPTS = 3
UNHURRIED = dict.fromkeys(("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"), "60000")

structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))

_numbers = itertools.count()


@pytest.fixture(scope="module")
def shared_url(postgres: EmbeddedPostgres, template: str) -> str:
    """A database for the tests of a module, each of which minds its own users. It need not survive a power cut."""
    url = create_database(postgres, f"integration_{next(_numbers)}", template)
    with psycopg.connect(libpq(url), autocommit=True) as connection:
        name = connection.info.dbname
        connection.execute(f"ALTER DATABASE {name} SET synchronous_commit = off")
    return url


@pytest.fixture
def url(shared_url: str) -> str:
    """The database; a module whose tests look at whole tables takes `database_url` here."""
    return shared_url


def libpq(url: str) -> str:
    """The URL as psycopg wants it."""
    return url.replace("postgresql+psycopg://", "postgresql://")


@pytest.fixture
def connect(url: str) -> Iterator[Callable[[], Connection[Any]]]:
    """Opens connections from outside, in autocommit."""
    with ExitStack() as stack:
        yield lambda: stack.enter_context(psycopg.connect(libpq(url), autocommit=True))


@pytest.fixture
def connection(connect: Callable[[], Connection[Any]]) -> Connection[Any]:
    """One connection from outside."""
    return connect()


@pytest.fixture
def make_engine(url: str) -> Iterator[Callable[..., Engine]]:
    """Makes engines as the product does, but for its bounds on time, which a busy machine could meet."""
    engines: list[Engine] = []

    def make(**options: Any) -> Engine:
        engines.append(sync_engine(DatabaseSettings(database_url=url), "test", **UNHURRIED | options))
        return engines[-1]

    yield make
    for engine in engines:
        engine.dispose()


@pytest.fixture
def engine(make_engine: Callable[..., Engine]) -> Engine:
    """One engine."""
    return make_engine(size=2)


@pytest.fixture
def told() -> list[UUID]:
    """The finished tasks that `executor` has told of."""
    return []


@pytest.fixture
def executor(make_engine: Callable[..., Engine], told: list[UUID]) -> Executor:
    """An executor on an engine of its own."""
    return make_executor(make_engine(role=Role.WORKER), told)


def make_executor(engine: Engine, told: list[UUID] | None = None) -> Executor:
    """An executor that gives up after `MAX_ATTEMPTS`."""
    tell = (lambda ids: None) if told is None else told.extend
    return Executor(engine, LIMITS, tell, MAX_ATTEMPTS, worker="here:1")
