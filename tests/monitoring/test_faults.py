"""Ten faults, one at a time, on real processes under a real Prometheus: which alert shows each, and after how long."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import httpx
import psycopg
import pytest
import redis

from local.embedded import children_of
from local.servers import EmbeddedPostgres, EmbeddedRedis
from tests.monitoring.conftest import MONITORING, Prometheus, Stopwatch, expressions
from tests.stack import ROOT, Process, Stack, eventually, headers
from workers.heartbeats import KEY

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

FIRES_SECONDS = 120.0
HEALTHY_SECONDS = float(os.environ.get("HEALTHY_SECONDS", "60"))
ARTIFACTS = ROOT / "artifacts" / "monitoring"


class Ward:
    """A service, a Prometheus over it, and some shoppers."""

    def __init__(self, folder: Path, postgres: EmbeddedPostgres, broker: EmbeddedRedis) -> None:
        self.postgres = postgres
        self.broker = broker
        self.stack = Stack(
            postgres.url,
            broker.url,
            folder,
            EXPIRE_INTERVAL_SECONDS="2",
            DELETE_INTERVAL_SECONDS="3",
            MAX_ATTEMPTS="50",
            DOCTOR_INTERVAL_SECONDS="20",
        )
        self.running: dict[str, Process] = {}
        for name in ("api", "maintenance", "beat", "worker"):
            self.start(name)
        self.start("worker", "worker-2")
        self.table: list[tuple[str, str, float, float]] = []

    def start(self, command: str, name: str = "") -> None:
        """Start a process, by a name of its own."""
        self.running[name or command] = self.stack.start(command)

    def restart(self, command: str, name: str = "") -> None:
        """Kill, start, and let the one before be forgotten, as if ten minutes had gone."""
        name = name or command
        self.running[name].kill()
        with redis.Redis.from_url(self.broker.url) as client:
            client.delete(KEY)
        self.start(command, name)

    def sql(self) -> psycopg.Connection[tuple[object, ...]]:
        """A connection to the database."""
        return psycopg.connect(self.postgres.url.replace("+psycopg", ""))

    def create(self, user: str, seconds: float = 10) -> str | None:
        """Begin a session; its id, if it was answered."""
        with suppress(httpx.HTTPError):
            response = httpx.post(
                f"{self.stack.url}/api/sessions",
                json={"package": "p"},
                headers=headers(user, Prefer="wait=5"),
                timeout=seconds,
            )
            return str(response.json().get("session_id"))
        return None

    def recover(self, user: str, session: str) -> None:
        """Ask for a session that is active, or is not any more."""
        with suppress(httpx.HTTPError):
            url = f"{self.stack.url}/api/sessions/{session}/recover"
            httpx.post(url, headers=headers(user, Prefer="wait=5"), timeout=10)


@pytest.fixture(scope="module")
def ward(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ward]:
    """Servers of its own: they are stopped and filled."""
    folder = tmp_path_factory.mktemp("ward")
    with EmbeddedPostgres(folder) as postgres, EmbeddedRedis(folder) as broker:
        environment = {"DATABASE_URL": postgres.url}
        subprocess.run([sys.executable, "-m", "db.migrate", "up"], cwd=ROOT, env=environment, check=True)
        ward = Ward(folder, postgres, broker)
        stop = threading.Event()

        def shop() -> None:
            while not stop.wait(0.5):
                user = f"shopper-{time.monotonic_ns() % 50}"
                if session := ward.create(user):
                    ward.recover(user, session)
                    ward.create(user)
                    ward.recover(user, session)

        shoppers = threading.Thread(target=shop)
        with ward.stack:
            shoppers.start()
            yield ward
            stop.set()
            shoppers.join()


@pytest.fixture(scope="module")
def prometheus(ward: Ward, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """Over the ward."""
    with Prometheus(tmp_path_factory.mktemp("prometheus"), ward.stack.api_port) as running:
        yield running


def test_a_healthy_service_raises_none(ward: Ward, prometheus: Prometheus) -> None:
    eventually(lambda: not prometheus.alerts(), "all are heard")
    watch = Stopwatch()
    while watch.seconds < HEALTHY_SECONDS:
        assert prometheus.alerts("firing") == set()
        time.sleep(0.5)
    sample = prometheus.ask("query", query="checkout_sessions_tasks_finished_total")["result"]
    assert float(sample[0]["value"][1]) > HEALTHY_SECONDS / 4, "shoppers were served"
    dashboard = json.loads((MONITORING / "grafana" / "checkout-sessions.json").read_text())
    empty = [e for e in expressions(dashboard["panels"]) if not prometheus.ask("query", query=e)["result"]]
    assert [expression for expression in empty if "problems" not in expression] == [], "each panel shows something"


@contextmanager
def worker_dead(ward: Ward) -> Iterator[None]:
    """All workers of the sessions."""
    for name in ("worker", "worker-2"):
        ward.running[name].kill()
    yield
    for name in ("worker", "worker-2"):
        ward.restart("worker", name)


@contextmanager
def worker_deaf(ward: Ward) -> Iterator[None]:
    """One of two is frozen; the other goes on."""
    ward.running["worker-2"].signal(signal.SIGSTOP)
    yield
    ward.running["worker-2"].signal(signal.SIGCONT)


@contextmanager
def beat_dead(ward: Ward) -> Iterator[None]:
    """Killed."""
    ward.running["beat"].kill()
    yield
    ward.restart("beat")


@contextmanager
def two_beats(ward: Ward) -> Iterator[None]:
    """A second one."""
    ward.start("beat", "beat-2")
    yield
    ward.running["beat-2"].stop()


@contextmanager
def redis_down(ward: Ward) -> Iterator[None]:
    """Stopped."""
    ward.broker.stop()
    yield
    ward.broker.start()


@contextmanager
def redis_full(ward: Ward) -> Iterator[None]:
    """At its maxmemory, and it evicts nothing."""
    with redis.Redis.from_url(ward.broker.url) as client:
        client.config_set("maxmemory-policy", "noeviction")
        client.config_set("maxmemory", client.info("memory")["used_memory"] - 100_000)
        with pytest.raises(redis.OutOfMemoryError):
            client.set("one more", "word")
        yield
        client.config_set("maxmemory", 0)


@contextmanager
def postgres_down(ward: Ward) -> Iterator[None]:
    """Stopped."""
    ward.postgres.stop()
    yield
    ward.postgres.start()


@contextmanager
def pool_exhausted(ward: Ward) -> Iterator[None]:
    """A forgotten transaction holds the sessions that shoppers step through."""
    session = eventually(lambda: ward.create("patient"))
    stop = threading.Event()

    def step() -> None:
        while not stop.is_set():
            with suppress(httpx.HTTPError):
                url = f"{ward.stack.url}/api/sessions/{session}"
                httpx.patch(url, json={"step": "packages"}, headers=headers("patient"), timeout=10)

    steppers = [threading.Thread(target=step) for _ in range(24)]
    with ward.sql() as connection:
        connection.execute("SELECT FROM checkout_sessions WHERE id = %s FOR UPDATE", [session])
        for stepper in steppers:
            stepper.start()
        yield
        stop.set()
        connection.rollback()
    for stepper in steppers:
        stepper.join()


@contextmanager
def backlog_growing(ward: Ward) -> Iterator[None]:
    """The workers' pools are stuck, their main processes are not; more and more is asked."""
    stop = threading.Event()
    stuck: set[int] = set()

    def hold() -> None:
        while not stop.wait(0.2):
            for name in ("worker", "worker-2"):
                for child in children_of(ward.running[name].popen.pid):
                    with suppress(ProcessLookupError):
                        os.kill(child, signal.SIGSTOP)
                        stuck.add(child)

    def ask() -> None:
        with httpx.Client(base_url=ward.stack.url, timeout=10) as client:
            number = 0
            while not stop.wait(0.01):
                number += 1
                with suppress(httpx.HTTPError):
                    client.post("/api/sessions", json={"package": "p"}, headers=headers(f"crowd-{number}"))

    threads = [threading.Thread(target=target) for target in (hold, ask)]
    for thread in threads:
        thread.start()
    yield
    stop.set()
    for thread in threads:
        thread.join()
    for child in stuck:
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGCONT)
    for name in ("worker", "worker-2"):
        ward.restart("worker", name)


@contextmanager
def cleanup_failing(ward: Ward) -> Iterator[None]:
    """The sweep may not write what it found."""
    with ward.sql() as connection:
        connection.execute("""
            CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'refused by a test'; END $$;
            CREATE TRIGGER refuse BEFORE UPDATE ON checkout_sessions FOR EACH ROW
                WHEN (NEW.status = 'expired') EXECUTE FUNCTION refuse();
            INSERT INTO checkout_sessions
                (id, user_id, status, package, origin, line_id, line_position, line_began_at, created_at, expires_at)
            SELECT id, 'o', 'active', 'p', 'created', id, 0, now(), now() - interval '2 days', now() - interval '1 s'
            FROM gen_random_uuid() AS id""")
    yield
    with ward.sql() as connection:
        connection.execute("DROP TRIGGER refuse ON checkout_sessions; DROP FUNCTION refuse")


Fault = Callable[[Ward], object]

FAULTS: list[tuple[Fault, str]] = [
    (worker_dead, "WorkersMissing"),
    (worker_deaf, "WorkerSilent"),
    (beat_dead, "BeatMissing"),
    (two_beats, "BeatDoubled"),
    (redis_down, "RedisDown"),
    (redis_full, "RedisFull"),
    (postgres_down, "PostgresDown"),
    (pool_exhausted, "PoolExhausted"),
    (backlog_growing, "BacklogGrowing"),
    (cleanup_failing, "CleanupFailing"),
]


@pytest.mark.parametrize(("fault", "alert"), FAULTS, ids=[fault.__name__ for fault, _ in FAULTS])  # type: ignore[attr-defined]
def test_a_fault_is_shown_by_its_alert(ward: Ward, prometheus: Prometheus, fault: Fault, alert: str) -> None:
    eventually(lambda: alert not in prometheus.alerts(), "it is not raised yet")
    with ExitStack() as made:
        made.enter_context(fault(ward))  # type: ignore[arg-type]
        watch = Stopwatch()
        eventually(lambda: alert in prometheus.alerts(), f"{alert} is pending", FIRES_SECONDS)
        shown = watch.seconds
        eventually(lambda: alert in prometheus.alerts("firing"), f"{alert} fires", FIRES_SECONDS)
        fired = watch.seconds
        others = sorted(prometheus.alerts("firing") - {alert})
    eventually(lambda: alert not in prometheus.alerts(), f"{alert} ends with its fault", FIRES_SECONDS)
    ARTIFACTS.mkdir(parents=True, exist_ok=True)
    with (ARTIFACTS / "faults.md").open("a") as file:
        name = fault.__name__.replace("_", " ")  # type: ignore[attr-defined]
        file.write(f"| {name} | {alert} | {shown:.1f} | {fired:.1f} | {', '.join(others)} |\n")
