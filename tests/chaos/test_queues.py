"""What Celery and kombu are known to do on Redis under stress, each with a test where it concerns us.

| known as                       | what                                             | test                   |
|--------------------------------|--------------------------------------------------|------------------------|
| celery 8030, 8091, 9054, 10205 | a worker stays deaf after Redis was restarted    | a_worker_comes_back    |
| (kombu 5.7, found here)        | a late ack after Redis was lost ends the worker  | a_worker_comes_back    |
| (Celery's growing pause)       | up to 30 s of waiting after a long outage        | a_worker_comes_back    |
| celery 10502, kombu 2590       | a half-open connection, silent for ever          | a_worker_notices       |
| (whatever else there is)       | alive, connected to nothing                      | a_deaf_worker_ends     |
| celery 3802, kombu 1836        | messages lost around SIGTERM                     | a_deploy_drops_nothing |
| celery 5598, 6103              | a message that kills its worker circles for ever | test_poison.py         |
| kombu 305, celery 7950, 4354   | a message that was popped dies with its worker   | test_crash_points.py   |
| celery 5935, kombu 337         | delivered twice, past the visibility timeout     | test_crash_points.py   |
"""

import itertools
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import psycopg
import pytest
from psycopg.types.json import Jsonb
from uuid_utils.compat import uuid7

from db.lifecycle import Kind
from local.servers import EmbeddedRedis
from tests.chaos.proxy import Proxy
from tests.stack import COMMANDS, Process, Stack, eventually
from workers import doorbell
from workers.configuration import create_app
from workers.consumer import EXIT_STATUS, LOOKS, Ear
from workers.settings import WorkerSettings

_numbers = itertools.count()
SOON = 10.0  # seconds; without the sweep, which these tests leave out


class Bench:
    """A worker under test, on a Redis of its own."""

    def __init__(self, stack: Stack, server: EmbeddedRedis) -> None:
        self.stack = stack
        self.redis = server
        self.connection = psycopg.connect(stack.env["DATABASE_URL"].replace("+psycopg", ""), autocommit=True)
        settings = WorkerSettings(database_url=stack.env["DATABASE_URL"], redis_url=server.url)
        self.app = create_app(settings, {"socket_timeout": 5})

    def ill(self, ailment: str, **settings: str) -> Process:
        """Start a worker that has something."""
        words = COMMANDS["worker"].format(n=next(_numbers), folder=self.stack.folder).split()
        argv = [sys.executable, "-m", "tests.chaos.ailments", ailment, *words[1:]]
        log = self.stack.folder / f"{ailment}-{next(_numbers)}.log"
        process = Process(ailment, argv, {**self.stack.env, **settings}, log)
        self.stack.processes.append(process)
        return process

    def ask(self) -> UUID:
        """Accept a create and ring for it."""
        task_id: UUID = uuid7()
        self.connection.execute(
            "INSERT INTO session_tasks (id, kind, user_id, session_id, payload, due_at) "
            "VALUES (%s, 'create', %s, %s, %s, now() + interval '1 hour')",
            (task_id, f"user-{task_id}", uuid7(), Jsonb({"package": "gold"})),
        )
        self.ring(task_id)
        return task_id

    def ring(self, task_id: UUID) -> None:
        """Ring, or ring again as the sweep does: what a connection had in hand when it died comes back in a minute."""
        assert doorbell.ring(self.app, [(task_id, Kind.CREATE)])

    def is_finished(self, task_id: UUID) -> bool:
        """Whether it is."""
        query = "SELECT state <> 'PENDING' FROM session_tasks WHERE id = %s"
        row = self.connection.execute(query, [task_id]).fetchone()
        return row is not None and bool(row[0])

    def works(self, seconds: float = SOON) -> None:
        """A doorbell that rings now is heard."""
        task_id = self.ask()
        eventually(lambda: self.is_finished(task_id), "the worker hears a doorbell", seconds)


@pytest.fixture
def bench(database_url: str, tmp_path: Path) -> Iterator[Bench]:
    """One, with nothing started."""
    with EmbeddedRedis(tmp_path) as server, Stack(database_url, server.url, tmp_path) as stack:
        bench = Bench(stack, server)
        yield bench
        bench.connection.close()
        bench.app.pool.force_close_all()


def test_a_worker_comes_back_as_soon_as_redis_does(bench: Bench) -> None:
    bench.stack.start("worker")
    worker = bench.stack.processes[-1]
    bench.works(60)
    for seconds in (*[0.1] * 12, 8.0):
        bench.redis.kill()
        time.sleep(seconds)
        bench.redis.start()
        bench.works()
    assert worker.running


def test_a_worker_notices_a_lost_route(bench: Bench) -> None:
    """Connections that are open and silent are replaced, without help by the watchdog."""
    with Proxy(bench.redis.port) as proxy:
        through = bench.redis.url.replace(f":{bench.redis.port}/", f":{proxy.port}/")
        worker = bench.stack.start("worker", REDIS_URL=through, WATCHDOG_SECONDS="600")
        bench.works(60)
        assert proxy.swallow() > 0
        time.sleep(2)  # what the server had been asked for before goes nowhere; the sweep would ring again for that
        bench.works(60)
        assert worker.running


def test_the_api_notices_a_lost_route(bench: Bench) -> None:
    """It looks in Postgres meanwhile, and listens again."""
    with Proxy(bench.redis.port) as proxy:
        through = bench.redis.url.replace(f":{bench.redis.port}/", f":{proxy.port}/")
        bench.stack.start("api", REDIS_URL=through)

        def redis_is() -> str:
            return str(httpx.get(f"{bench.stack.url}/readyz").json()["checks"]["redis"])

        eventually(lambda: redis_is() == "ok")
        proxy.swallow()
        eventually(lambda: redis_is() != "ok", "the silence is noticed")
        eventually(lambda: redis_is() == "ok", "it listens again")


def test_a_deaf_worker_ends(bench: Bench) -> None:
    worker = bench.ill("deaf", WATCHDOG_SECONDS="2")
    bench.works(60)  # it listens once, and stays at the door for a moment
    asked = [bench.ask()]

    def ended() -> bool:
        asked.append(bench.ask())
        return worker.popen.poll() is not None

    eventually(ended, "the worker ends", 60)
    assert worker.popen.returncode == EXIT_STATUS
    bench.stack.start("worker")
    eventually(lambda: all(map(bench.is_finished, asked)), "who takes its place does the work")


def test_neither_a_busy_worker_nor_an_outage_alarms_the_watchdog(bench: Bench) -> None:
    worker = bench.ill("slow", WATCHDOG_SECONDS="3")
    bench.works(60)
    asked = [bench.ask() for _ in range(10)]
    eventually(lambda: all(map(bench.is_finished, asked)), "a backlog is worked off")
    task_id = bench.ask()
    bench.redis.pause()
    time.sleep(5)
    bench.redis.resume()
    bench.ring(task_id)
    eventually(lambda: bench.is_finished(task_id), "Redis is back")
    worker.signal(signal.SIGSTOP)
    task_id = bench.ask()
    time.sleep(5)
    worker.signal(signal.SIGCONT)
    eventually(lambda: bench.is_finished(task_id), "the worker is back")
    assert worker.running


def test_an_ear_counts_looks_in_a_row() -> None:
    ear = Ear()
    assert not ear.is_deaf(5, "begun 1")
    assert [ear.is_deaf(5, "begun 1") for _ in range(LOOKS)] == [False] * (LOOKS - 1) + [True]
    for backlog, progress in ((0, "begun 1"), (None, "begun 1"), (5, "begun 2")):
        assert not ear.is_deaf(backlog, progress)  # idle, an outage, busy
        assert not ear.is_deaf(5, progress)


def test_a_deploy_drops_nothing_and_is_quick(bench: Bench) -> None:
    """SIGTERM to API and worker under load: each ends within 10 s, and whatever was accepted is done."""
    stack = bench.stack
    for name in ("api", "worker", "maintenance", "beat"):
        stack.start(name)
    stopping = threading.Event()
    accepted: list[str] = []
    refused: list[Any] = []

    def load(user: str) -> None:
        with stack.client(user) as client:
            while not stopping.is_set():
                try:
                    answer = client.post("/api/sessions", json={"package": "gold"})
                except httpx.TransportError:
                    time.sleep(0.05)
                    continue
                if answer.status_code == 202:
                    accepted.append(answer.json()["task_id"])
                else:
                    refused.append(answer.text)

    loads = [threading.Thread(target=load, args=(f"user-{n}",), daemon=True) for n in range(8)]
    for one in loads:
        one.start()
    took = {}
    try:
        for _ in range(2):
            eventually(lambda: accepted and _done(bench, accepted[-1:]), "the worker works")
            for name in ("worker", "api"):
                process = [p for p in stack.processes if p.name == name][-1]
                began = time.monotonic()
                status = process.stop(30)
                took[name] = max(took.get(name, 0.0), time.monotonic() - began)
                assert status in (0, -signal.SIGTERM), f"{name} ended with {status}"  # uvicorn raises it again
                stack.start(name)
    finally:
        stopping.set()
        for one in loads:
            one.join()
    assert not refused
    eventually(lambda: _done(bench, accepted), "whatever was accepted is done")
    assert max(took.values()) < 10, took


def _done(bench: Bench, task_ids: list[str]) -> bool:
    query = "SELECT count(*) FROM session_tasks WHERE id = ANY(%s::uuid[]) AND state = 'SUCCESS'"
    row = bench.connection.execute(query, [task_ids]).fetchone()
    return row is not None and row[0] == len(task_ids)
