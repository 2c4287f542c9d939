"""One running service for all tests of the HTTP contract; each test has users of its own."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from psycopg.rows import dict_row

from local.servers import EmbeddedPostgres, EmbeddedRedis
from tests.api.contract import Contract, new_user
from tests.conftest import create_database
from tests.stack import Process, Stack, free_port, headers

Enter = Callable[..., httpx.Client]
Crowd = Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]]


WHOLE_RUN = pytest.StashKey[bool]()  # whether all tests of this folder run, so that they can be judged together
STACKS = pytest.StashKey[list[Stack]]()
FOLDER = Path(__file__).parent
MORE: list[Process] = []  # API processes beside the service's own


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The judgement over all tests comes after them."""
    files = {item.path for item in items}
    config.stash[STACKS] = []
    config.stash[WHOLE_RUN] = set(FOLDER.glob("test_*.py")) <= files and not any("::" in arg for arg in config.args)
    items.sort(key=lambda item: item.path == FOLDER / "test_whole.py")


def pytest_deselected(items: list[pytest.Item]) -> None:
    """Some are not to run."""
    for item in items:
        if item.path.parent == FOLDER and not item.get_closest_marker("slow"):
            item.config.stash[WHOLE_RUN] = False


def pytest_runtest_teardown(item: pytest.Item) -> None:
    """Other folders' tests do not have to share the machine with these processes."""
    items = item.session.items
    later = {one.path for one in items[items.index(item) + 1 :]}
    if not any(path.parent == FOLDER and path.name != "test_whole.py" for path in later):
        for process in [process for stack in item.config.stash[STACKS] for process in stack.processes]:
            process.kill()


@dataclass
class Service:
    """A stack, and a look behind it.

    Args:
        stack: the processes.
        sql: a connection to their database.
    """

    stack: Stack
    sql: psycopg.Connection[dict[str, Any]]

    def one(self, query: str, *parameters: Any) -> dict[str, Any]:
        """The one row of a query."""
        rows = self.sql.execute(query, parameters).fetchall()
        assert len(rows) == 1, rows
        return rows[0]

    def count(self, table: str, user_id: str) -> int:
        """How many rows of a table are a user's."""
        query = psycopg.sql.SQL("SELECT count(*) AS n FROM {} WHERE user_id = %s").format(psycopg.sql.Identifier(table))
        row = self.sql.execute(query, [user_id]).fetchone()
        assert row
        return int(row["n"])

    def waits_for_a_lock(self) -> bool:
        """Whether one of the service's connections to this database does."""
        waiting = self.one("""SELECT count(*) AS n FROM pg_stat_activity
            WHERE datname = current_database() AND wait_event_type = 'Lock'""")
        return bool(waiting["n"])

    def age(self, session_id: str, days: float) -> None:
        """Make a session this much older."""
        self.sql.execute(
            """UPDATE checkout_sessions SET created_at = created_at - make_interval(secs => %(s)s),
            expires_at = expires_at - make_interval(secs => %(s)s) WHERE id = %(id)s""",
            {"s": days * 86_400, "id": session_id},
        )

    def finish_all(self) -> None:
        """Refuse all that is pending, as a worker would that cannot tell anyone: in Postgres alone."""
        self.sql.execute("""UPDATE session_tasks SET state = 'FAILURE', refusal = 'session_unrecoverable',
            finished_at = now(), result_session_id = session_id WHERE state = 'PENDING'""")

    def another_api(self, **settings: str) -> str:
        """Start one more API process, and give its URL."""
        port = str(free_port())
        MORE.append(self.stack.start("api", API_PORT=port, **settings))
        return f"http://127.0.0.1:{port}"


@pytest.fixture(scope="session")
def contract() -> Contract:
    """What was described, and what was seen."""
    return Contract()


@pytest.fixture(scope="session")
def services(
    postgres: EmbeddedPostgres,
    redis_server: EmbeddedRedis,
    template: str,
    tmp_path_factory: pytest.TempPathFactory,
    request: pytest.FixtureRequest,
) -> Iterator[Callable[..., Service]]:
    """Makes a service with a database and a Redis number of its own, and starts the processes named."""
    numbers = iter(range(15, 7, -1))
    with ExitStack() as opened:

        def make(name: str, *processes: str, **settings: str) -> Service:
            database_url = create_database(postgres, f"api_{name}", template)
            redis_url = redis_server.url.rsplit("/", 1)[0] + f"/{next(numbers)}"
            stack = opened.enter_context(Stack(database_url, redis_url, tmp_path_factory.mktemp(name), **settings))
            request.config.stash[STACKS].append(stack)
            libpq = database_url.replace("+psycopg", "")
            sql = opened.enter_context(psycopg.connect(libpq, autocommit=True, row_factory=dict_row))
            for process in processes:
                stack.start(process)
            return Service(stack, sql)

        yield make


@pytest.fixture(scope="session")
def service(services: Callable[..., Service]) -> Service:
    """API and workers, that nobody stops. No beat: what tests see, they caused."""
    made = services("house", "worker", "maintenance", "api", MAX_ATTEMPTS="1")
    patience = headers(new_user(), Prefer="wait=30")
    first = httpx.post(f"{made.stack.url}/api/sessions", json={"package": "first"}, headers=patience, timeout=60)
    assert first.status_code == 201, f"no worker executes: {first.text}"
    return made


@pytest.fixture(scope="session")
def idle(services: Callable[..., Service]) -> Service:
    """An API without any worker: what is accepted stays pending."""
    return services("idle", "api")


@pytest.fixture
def enter(service: Service, contract: Contract) -> Iterator[Enter]:
    """Makes a client of some user, whose every answer is held against the contract."""
    with ExitStack() as opened:

        def make(user_id: str = "", role: str = "authenticated", url: str = "", **more: str) -> httpx.Client:
            return opened.enter_context(
                httpx.Client(
                    base_url=url or service.stack.url,
                    headers=headers(user_id or new_user(), role) | {k.replace("_", "-"): v for k, v in more.items()},
                    timeout=60,
                    verify=False,  # no TLS here, and certificates take long to load
                    event_hooks={"response": [contract.check]},
                )
            )

        yield make


@pytest.fixture
def crowd(service: Service, contract: Contract) -> Crowd:
    """Makes a client for many requests at once."""

    @asynccontextmanager
    async def make(
        user_id: str, role: str = "authenticated", url: str = "", **more: str
    ) -> AsyncIterator[httpx.AsyncClient]:
        async with httpx.AsyncClient(
            base_url=url or service.stack.url,
            headers=headers(user_id, role) | {k.replace("_", "-"): v for k, v in more.items()},
            timeout=60,
            verify=False,
            limits=httpx.Limits(max_connections=100),
            event_hooks={"response": [contract.acheck]},
        ) as client:
            yield client

    return make


@pytest.fixture(scope="module")
def tidy() -> Iterator[None]:
    """End the further API processes with the module: together they would take all of Postgres' connections."""
    before = len(MORE)
    yield
    for process in MORE[before:]:
        process.kill()


@pytest.fixture
def user_id() -> str:
    """The test's own user."""
    return new_user()


@pytest.fixture
def shopper(enter: Enter, user_id: str) -> httpx.Client:
    """The test's own user, who does not wait."""
    return enter(user_id)


@pytest.fixture
def patient(enter: Enter, user_id: str) -> httpx.Client:
    """The test's own user, who waits for results."""
    return enter(user_id, Prefer="wait=20")


@pytest.fixture
def operator(enter: Enter) -> httpx.Client:
    """A service token."""
    return enter("operator", "service_role")
