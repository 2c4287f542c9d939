"""Redis is emptied, stopped, frozen; Postgres is stopped, frozen. One stack goes through all of it, never restarted."""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import psycopg
import pytest
import redis
from psycopg import Connection

from db.migrate import main as migrate
from local.embedded import EmbeddedServer
from local.servers import EmbeddedPostgres, EmbeddedRedis
from tests.acceptance.conftest import Measure
from tests.stack import Stack, eventually

pytestmark = pytest.mark.acceptance

Servers = tuple[EmbeddedPostgres, EmbeddedRedis]
PROMPT = 10.0  # seconds in which an answer comes however busy the machine; the issue asks for two


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """Servers of these tests' own."""
    folder = tmp_path_factory.mktemp("servers")
    with EmbeddedPostgres(folder) as postgres, EmbeddedRedis(folder) as redis_server:
        yield postgres, redis_server


@pytest.fixture(scope="module")
def outlasting(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The stack, all of whose processes run to the end."""
    postgres, redis_server = servers
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DATABASE_URL", postgres.url)
        assert migrate(["up"]) is None
    with Stack(postgres.url, redis_server.url, tmp_path_factory.mktemp("stack")) as stack:
        yield stack.start_all()
        assert all(process.running for process in stack.processes)


@pytest.fixture
def shopper(outlasting: Stack) -> Iterator[httpx.Client]:
    """A shopper whose requests are done when the test begins."""
    with outlasting.client("shopper") as client:
        assert client.post("/api/sessions", json={"package": "warm"}, headers={"Prefer": "wait=30"}).status_code == 201
        yield client


@contextmanager
def frozen(server: EmbeddedServer) -> Iterator[None]:
    """Paused: its connections stay open, and nothing answers."""
    server.pause()
    try:
        yield
    finally:
        server.resume()


@contextmanager
def stopped(server: EmbeddedServer) -> Iterator[None]:
    """Stopped, and started again on the same port."""
    server.stop()
    try:
        yield
    finally:
        server.start()


def create(client: httpx.Client) -> httpx.Response:
    return client.post("/api/sessions", json={"package": "gold"})


def finished(client: httpx.Client, location: str) -> bool:
    """Whether that task succeeded, as polling tells."""
    return client.get(location).json()["state"] == "SUCCESS"


def test_what_is_pending_when_redis_is_emptied_finishes(
    outlasting: Stack, shopper: httpx.Client, servers: Servers, measured: Measure
) -> None:
    worker = next(process for process in outlasting.processes if process.name == "worker")
    worker.signal(signal.SIGSTOP)
    try:
        locations = [create(shopper).headers["Location"] for _ in range(50)]
        with redis.Redis.from_url(servers[1].url) as client:
            assert client.llen("sessions") > 0, "there is something to lose"
            client.flushall()
    finally:
        worker.signal(signal.SIGCONT)
    with measured("50 tasks pending at FLUSHALL, until all are finished"):
        for location in locations:
            eventually(lambda location=location: finished(shopper, location))


@pytest.mark.parametrize("outage", [stopped, frozen])
def test_without_redis_a_create_is_accepted_and_finishes_when_it_returns(
    shopper: httpx.Client,
    servers: Servers,
    measured: Measure,
    outage: Callable[..., Any],
) -> None:
    with outage(servers[1]):
        for _ in range(3):
            with measured(f"create, Redis {outage.__name__}"):
                began = time.monotonic()
                accepted = create(shopper)
                assert accepted.status_code == 202, accepted.text
                assert time.monotonic() - began < PROMPT
        assert shopper.get("/api/sessions/current").status_code == 200
        assert shopper.get(accepted.headers["Location"]).json()["state"] == "PENDING"
    with measured(f"until it is finished, once Redis is no longer {outage.__name__}"):
        eventually(lambda: finished(shopper, accepted.headers["Location"]))
    assert shopper.get("/api/sessions/current").json()["id"] == accepted.json()["session_id"]


@pytest.mark.parametrize("outage", [stopped, frozen])
def test_without_postgres_the_answer_is_503_and_all_heals_when_it_returns(
    shopper: httpx.Client,
    servers: Servers,
    measured: Measure,
    outage: Callable[..., Any],
) -> None:
    session = shopper.get("/api/sessions/current").json()["id"]
    requests = {
        "create": lambda: create(shopper),
        "validate": lambda: shopper.get(f"/api/sessions/{session}"),
        "navigate": lambda: shopper.patch(f"/api/sessions/{session}", json={"step": "checkout"}),
    }
    with outage(servers[0]):
        for name, request in [*requests.items()] * 2:
            with measured(f"{name}, Postgres {outage.__name__}"):
                began = time.monotonic()
                answer = request()
                assert (answer.status_code, answer.json()["code"]) == (503, "database_unavailable")
                assert int(answer.headers["Retry-After"]) >= 1
                assert time.monotonic() - began < PROMPT
        assert shopper.get("/healthz").status_code == 200
        assert shopper.get("/readyz").status_code == 503
    with measured(f"until a create is accepted, once Postgres is no longer {outage.__name__}"):
        accepted = eventually(lambda: (answer := create(shopper)).status_code == 202 and answer)
    with measured("until it is finished"):
        eventually(lambda: finished(shopper, accepted.headers["Location"]))
    eventually(lambda: shopper.get("/readyz").json()["status"] == "ok")


def test_nothing_that_was_accepted_is_left(servers: Servers, outlasting: Stack) -> None:
    with psycopg.connect(servers[0].libpq_url, autocommit=True) as connection:
        left: Connection[Any] = connection
        count = "SELECT count(*) FROM session_tasks WHERE state <> 'SUCCESS'"
        eventually(lambda: left.execute(count).fetchone() == (0,))
        active = "SELECT count(*) FROM checkout_sessions WHERE status = 'active'"
        assert left.execute(active).fetchone() == (1,)
