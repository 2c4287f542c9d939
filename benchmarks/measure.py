"""One measurement of one system: load, figures, and the check that every answered session exists."""

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psycopg

from benchmarks import load
from benchmarks.load import Target
from benchmarks.processes import usage
from benchmarks.servers import Servers, libpq
from benchmarks.systems import System

DRAIN_SECONDS = 120.0
SERVING = ("api", "worker")
REST_SECONDS = 0.2  # in which processes at rest use less than a tenth of a core


@dataclass(frozen=True)
class Measurement:
    """Args:
    rate: answered requests per second.
    p50: milliseconds.
    p99: milliseconds.
    sessions: answered.
    cpu: seconds per 1,000 sessions, by process.
    rss: megabytes, by process.
    drained: seconds after the load until every accepted task was finished.
    """

    rate: float
    p50: float
    p99: float
    sessions: int
    cpu: dict[str, float]
    rss: dict[str, float]
    drained: float

    @property
    def work(self) -> float:
        """CPU seconds per 1,000 sessions of everything but wrk."""
        return sum(seconds for label, seconds in self.cpu.items() if label != "wrk")

    def as_json(self) -> dict[str, Any]:
        """Rounded to what means something."""
        return {key: _rounded(value) for key, value in asdict(self).items()}


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: round(one, 4) for key, one in value.items()}
    return round(value, 4) if isinstance(value, float) else value


def measure(
    system: System,
    target: Target,
    servers: Servers,
    requests: Path,
    clients: int,
    seconds: int,
    offset: int | None = None,
    pause: int = 0,
) -> Measurement:
    """Load a system (see `load.run`) and look at what it used.

    CPU is counted until every accepted task is finished and the processes are at rest, so that what is accepted and not
    yet done is not free, and none of it falls into the next measurement.

    Raises:
        AssertionError: a request failed, or an answered session is not in the database as it should be.
    """
    pids = {**system.processes.pids(), "postgres": [pid_of(servers.postgres)], "redis": [pid_of(servers.redis)]}
    before = usage(pids)
    sample = load.run(target, system.ports, requests, clients, seconds, offset, pause)
    ended = time.monotonic()
    with psycopg.connect(libpq(system.database_url), autocommit=True) as connection:
        drained = _drain(connection) - ended
        _rest(system)
        after = usage(pids)
        _check(connection, target, sample.ids)
    per_thousand = 1000 / sample.requests
    return Measurement(
        rate=sample.requests / sample.seconds,
        p50=sample.p50,
        p99=sample.p99,
        sessions=sample.requests,
        cpu={**{k: v * per_thousand for k, v in after.since(before).items()}, "wrk": sample.cpu * per_thousand},
        rss={label: size / 1e6 for label, size in after.rss.items()},
        drained=drained,
    )


def pid_of(server: Any) -> int:
    """Of an embedded server."""
    assert server.process is not None
    return int(server.process.pid)


def _drain(connection: psycopg.Connection[Any]) -> float:
    """Wait until nothing is pending; returns when that was."""
    deadline = time.monotonic() + DRAIN_SECONDS
    while connection.execute("SELECT EXISTS (SELECT FROM session_tasks WHERE state = 'PENDING')").fetchone() != (
        False,
    ):
        assert time.monotonic() < deadline, f"tasks are still pending after {DRAIN_SECONDS} s"
        time.sleep(0.02)
    return time.monotonic()


def _rest(system: System) -> None:
    """Wait until those who serve do no more work: textbook's queue is not in the database."""
    pids = {label: some for label, some in system.processes.pids().items() if label in SERVING}
    deadline = time.monotonic() + DRAIN_SECONDS
    used = usage(pids)
    while True:
        time.sleep(REST_SECONDS)
        now = usage(pids)
        if sum(now.since(used).values()) < REST_SECONDS / 10:
            return
        assert time.monotonic() < deadline, f"the processes are still at work after {DRAIN_SECONDS} s"
        used = now


def _check(connection: psycopg.Connection[Any], target: Target, ids: list[str]) -> None:
    """Each answer named a session, where it should one of its own, and it is there."""
    assert not target.once or len(set(ids)) == len(ids), "two answers named the same session"
    query = "SELECT id::text FROM checkout_sessions WHERE id = ANY(%s::uuid[]) AND status = coalesce(%s, status)"
    lost = set(ids) - {row[0] for row in connection.execute(query, [ids, target.state])}
    assert not lost, f"{len(lost)} of {len(ids)} answered sessions are not in the database, e.g. {next(iter(lost))}"
