"""An empty database on each Postgres that is at hand: the wheel's 18 always, the oldest of Debian's if installed."""

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import pytest

from local.servers import EmbeddedPostgres
from tests.conftest import create_database
from tests.migrations.database import Database

SUPPORTED = range(15, 18)
OTHERS = [major for major in SUPPORTED if Path(f"/usr/lib/postgresql/{major}/bin/postgres").exists()][:1]

_numbers = itertools.count()


@pytest.fixture(scope="session")
def other_postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    """The older server, started once."""
    programs = Path(f"/usr/lib/postgresql/{OTHERS[0]}/bin")
    server = EmbeddedPostgres(tmp_path_factory.mktemp(f"postgres{OTHERS[0]}"))
    with mock.patch.multiple("local.servers", POSTGRES_MAJOR=OTHERS[0], _postgres_program=programs.joinpath):
        server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session", params=[18, *OTHERS], ids="postgres{}".format)
def server(request: pytest.FixtureRequest) -> EmbeddedPostgres:
    """Each server in turn."""
    chosen: EmbeddedPostgres = request.getfixturevalue("postgres" if request.param == 18 else "other_postgres")
    return chosen


@pytest.fixture(scope="session")
def pool(server: EmbeddedPostgres) -> list[Database]:
    """Empty databases of the server. They are used again: to make one takes longer than most tests."""
    return []


@pytest.fixture
def new_database(server: EmbeddedPostgres, pool: list[Database]) -> Iterator[Callable[[], Database]]:
    """Gives empty databases."""
    given: list[Database] = []

    def give() -> Database:
        given.append(pool.pop() if pool else Database(create_database(server, f"migrations_{next(_numbers)}")))
        return given[-1]

    yield give
    for database in given:
        pool.append(Database(database.made_as))
        pool[-1].empty()


@pytest.fixture
def database(new_database: Callable[[], Database]) -> Database:
    """One empty database."""
    return new_database()
