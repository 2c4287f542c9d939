"""What shoppers hear while Postgres or Redis is stopped or frozen, and that it heals without a restart."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import httpx
import psycopg
import pytest
from uuid_utils.compat import uuid7

from local.embedded import EmbeddedServer
from local.servers import EmbeddedPostgres, EmbeddedRedis
from tests.api.asking import begin
from tests.api.conftest import Enter
from tests.api.contract import Contract, assert_problem
from tests.stack import ROOT, Stack, eventually


@dataclass
class Frail:
    """A service whose servers come and go."""

    stack: Stack
    postgres: EmbeddedPostgres
    redis: EmbeddedRedis

    def sql(self, query: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """A look behind, on a connection of its own."""
        with psycopg.connect(self.postgres.libpq_url, autocommit=True) as connection:
            cursor = connection.execute(query, parameters)
            return cursor.fetchall() if cursor.description else []


@pytest.fixture(scope="module")
def frail(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Frail]:
    """Everything, over servers of its own."""
    folder = tmp_path_factory.mktemp("frail")
    with EmbeddedPostgres(folder / "p") as postgres, EmbeddedRedis(folder / "r") as redis:
        migrated = [sys.executable, "-m", "db.migrate", "up"]
        environment = {"DATABASE_URL": postgres.url}
        subprocess.run(migrated, cwd=ROOT, env=environment, check=True, capture_output=True)
        with Stack(postgres.url, redis.url, folder) as stack:
            stack.start_all()  # with beat: it rings again for what workers heard of in an outage
            yield Frail(stack, postgres, redis)


@pytest.fixture
def client(enter: Enter, frail: Frail, user_id: str) -> httpx.Client:
    """The test's user at the frail service, which works."""
    client = enter(user_id, url=frail.stack.url)
    eventually(lambda: client.get("/readyz").json()["status"] == "ok", "all is well before the test")
    return client


@pytest.fixture(params=["stopped", "frozen"])
def away(request: pytest.FixtureRequest) -> Iterator[Callable[[EmbeddedServer], None]]:
    """Takes a server away, in one way or the other; it is back after the test, if not before."""
    taken: list[EmbeddedServer] = []

    def take(server: EmbeddedServer) -> None:
        taken.append(server)
        if request.param == "stopped":
            server.stop()
        else:
            server.pause()

    yield take
    for server in taken:
        back(server)


def back(server: EmbeddedServer) -> None:
    """A server that was taken away is there again, on the same port, with its data."""
    if server.process is None:
        server.start()
    else:
        server.resume()


def timed(ask: Callable[[], httpx.Response]) -> tuple[float, httpx.Response]:
    """An answer and how long it took."""
    began = time.monotonic()
    response = ask()
    return time.monotonic() - began, response


def quickest(ask: Callable[[], httpx.Response]) -> float:
    """The least time of two: what the service takes, whatever else the machine does."""
    return min(timed(ask)[0] for _ in range(2))


def test_without_postgres_all_hear_it_in_time(
    client: httpx.Client, frail: Frail, away: Callable[[EmbeddedServer], None], contract: Contract, enter: Enter
) -> None:
    session = begin(client)
    location = client.post("/api/sessions", json={"package": "p"}).headers["Location"]
    operator = enter(role="service_role", url=frail.stack.url)
    path = f"/api/sessions/{session['id']}"
    old = {"sessionId": session["id"]}
    asked: list[Callable[[], httpx.Response]] = [
        lambda: client.post("/api/sessions", json={"package": "p"}),
        lambda: client.post("/api/sessions", json={"package": "p"}, headers={"Prefer": "wait=20"}),
        lambda: client.post(f"{path}/renew", json={"package": "p"}),
        lambda: client.post(f"{path}/recover"),
        lambda: client.post(f"{path}/complete", json={"payment_reference": "p"}),
        lambda: client.patch(path, json={"step": "x"}),
        lambda: client.get(path),
        lambda: client.get("/api/sessions/current"),
        lambda: client.get(f"{path}/history"),
        lambda: client.get(location),
        lambda: client.get(f"{location}?wait=20"),
        lambda: client.post("/api/create-checkout-session", json={"packageId": "p"}),
        lambda: client.post("/api/validate-checkout-session", json=old),
        lambda: client.post("/api/recover-checkout-session", json=old),
        lambda: operator.post("/api/maintenance/cleanup"),
        lambda: operator.get("/api/cleanup-expired-sessions"),
    ]
    away(frail.postgres)
    for _ in range(2):  # and again, when connections have been given up
        with ThreadPoolExecutor(len(asked)) as threads:
            answers = list(threads.map(timed, asked))
        for seconds, response in answers:
            where = f"{response.request.method} {response.request.url.path}"
            assert response.status_code == 503, f"{where}: {response.text}"
            assert response.json()["code"] == "database_unavailable"
            assert response.headers["Retry-After"] == "2"
            assert seconds < 10, f"{where} took {seconds:.1f} s"
    assert quickest(lambda: client.get(path)) < 2.0
    assert quickest(lambda: client.post("/api/sessions", json={"package": "p"})) < 2.0
    assert client.get("/healthz").status_code == 200
    seconds, metrics = timed(lambda: client.get("/metrics"))
    assert "checkout_sessions_postgres_up 0.0\n" in metrics.text
    assert seconds < 5, "who looks at an outage does not hang with it"
    ready = eventually(lambda: (r := client.get("/readyz")).status_code == 503 and r)
    assert (ready.json()["accept"], ready.json()["checks"]["postgres"]) == (False, "unreachable")

    back(frail.postgres)
    assert eventually(lambda: (r := client.get(path)).status_code == 200 and r).json()["id"] == session["id"]
    again = eventually(lambda: (r := client.post("/api/sessions", json={"package": "q"})).status_code == 202 and r)
    eventually(lambda: client.get(again.headers["Location"]).json()["state"] == "SUCCESS", "workers heal as well")


def test_a_repeat_after_an_outage_of_postgres_is_one_task(
    client: httpx.Client, frail: Frail, away: Callable[[EmbeddedServer], None], user_id: str
) -> None:
    """Whether the first try was committed, when the answer could not be given, makes no difference."""
    away(frail.postgres)
    key = {"Idempotency-Key": "once"}
    first = client.post("/api/sessions", json={"package": "p"}, headers=key)
    assert_problem(first, "database_unavailable", "retry")
    back(frail.postgres)
    again = eventually(
        lambda: (r := client.post("/api/sessions", json={"package": "p"}, headers=key)).status_code == 202 and r
    )
    eventually(lambda: client.get(again.headers["Location"]).json()["state"] == "SUCCESS")
    tasks = frail.sql("SELECT id::text FROM session_tasks WHERE user_id = %s", user_id)
    assert tasks == [(again.json()["task_id"],)]


@pytest.mark.parametrize("name", ["postgres", "redis"])
def test_the_api_stops_in_time_without_its_servers(
    client: httpx.Client, frail: Frail, away: Callable[[EmbeddedServer], None], name: str
) -> None:
    api = next(process for process in frail.stack.processes if process.name == "api" and process.running)
    away(getattr(frail, name))
    client.post("/api/sessions", json={"package": "p"})  # its connections and doorbells are under way
    api.stop(10)
    frail.stack.start("api", ready=False)


def finish(frail: Frail, task_id: str) -> None:
    """As a worker that cannot tell anyone: the task is decided, in Postgres alone."""
    frail.sql(
        """UPDATE session_tasks SET state = 'FAILURE', refusal = 'session_unrecoverable', finished_at = now(),
        result_session_id = session_id WHERE id = %s""",
        task_id,
    )


def test_without_redis_writes_are_accepted_reads_answered_and_results_found(
    client: httpx.Client, frail: Frail, away: Callable[[EmbeddedServer], None]
) -> None:
    session = begin(client)
    path = f"/api/sessions/{session['id']}"
    away(frail.redis)
    assert quickest(lambda: client.post("/api/sessions", json={"package": "p"})) < 1.0
    assert quickest(lambda: client.get(path)) < 1.0
    assert client.patch(path, json={"step": "x"}).json()["step"] == "x"
    unknown = client.post(f"/api/sessions/{uuid7()}/recover")
    assert unknown.status_code == 202

    with ThreadPoolExecutor(2) as threads:
        poll = threads.submit(client.get, f"{unknown.headers['Location']}?wait=30")
        waited = threads.submit(client.post, f"/api/sessions/{uuid7()}/recover", headers={"Prefer": "wait=30"})
        recovers = "SELECT id::text FROM session_tasks WHERE user_id = %s AND kind = 'recover' AND state = 'PENDING'"
        eventually(lambda: len(frail.sql(recovers, session["user_id"])) == 2)
        for (task_id,) in frail.sql(recovers, session["user_id"]):
            finish(frail, task_id)
        assert poll.result().json()["state"] == "FAILURE"
        assert waited.result().json()["code"] == "session_unrecoverable"
    body = eventually(lambda: (b := client.get("/readyz").json())["checks"]["redis"] != "ok" and b)
    assert body["status"] == "degraded"
    assert body["accept"] is True
    assert body["execute"] is False
    assert body["checks"]["redis"].startswith("unreachable")

    back(frail.redis)
    eventually(lambda: client.get("/readyz").json()["checks"]["redis"] == "ok", "Redis is heard again")

    def healed() -> bool:
        """Each request rings; what was accepted meanwhile is done with the first that is heard."""
        response = client.post("/api/sessions", json={"package": "p"}, headers={"Prefer": "wait=2"})
        return response.status_code == 201

    eventually(healed, "tasks are executed again")
    pending = "SELECT count(*) FROM session_tasks WHERE user_id = %s AND state = 'PENDING'"
    eventually(lambda: frail.sql(pending, session["user_id"]) == [(0,)], "and what was accepted meanwhile as well")
