"""Real servers, one of each for a process of the run; a database of its own for each test that asks for one."""

import itertools
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from local.servers import EmbeddedPostgres, EmbeddedRedis
from tests.stack import ROOT, Stack

_numbers = itertools.count()


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads it
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """With several processes a file's tests stay with one: they share what its first test starts."""
    for item in items:
        item.add_marker(pytest.mark.xdist_group(str(item.path)))


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    """A Postgres that nobody stops; tests of outages make one of their own."""
    with EmbeddedPostgres(tmp_path_factory.mktemp("postgres")) as server:
        with psycopg.connect(server.superuser_url, autocommit=True) as connection:
            connection.execute("ALTER SYSTEM SET fsync = off")  # it need not outlive a power cut, and is made a lot
            connection.execute("SELECT pg_reload_conf()")
        yield server


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedRedis]:
    """A Redis that nobody stops or flushes."""
    with EmbeddedRedis(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(scope="session")
def template(postgres: EmbeddedPostgres) -> str:
    """The name of a migrated database, to be copied."""
    name = "template_migrated"
    url = create_database(postgres, name)
    subprocess.run([sys.executable, "-m", "db.migrate", "up"], cwd=ROOT, env={"DATABASE_URL": url}, check=True)
    return name


def create_database(postgres: EmbeddedPostgres, name: str, template: str = "template0") -> str:
    """Make a database and give its URL."""
    with psycopg.connect(postgres.libpq_url, autocommit=True) as connection:
        statement = sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(template))
        connection.execute(statement)
    return postgres.url.rsplit("/", 1)[0] + f"/{name}"


@pytest.fixture
def database_url(postgres: EmbeddedPostgres, template: str) -> str:
    """A migrated, empty database of the test's own."""
    return create_database(postgres, f"test_{next(_numbers)}", template)


@pytest.fixture
def redis_url(redis_server: EmbeddedRedis) -> str:
    """A Redis database number of the test's own, as far as there are some."""
    return redis_server.url.rsplit("/", 1)[0] + f"/{next(_numbers) % 16}"


@pytest.fixture
def stack(database_url: str, redis_url: str, tmp_path: Path) -> Iterator[Stack]:
    """A stack with nothing started yet."""
    with Stack(database_url, redis_url, tmp_path) as stack:
        yield stack
