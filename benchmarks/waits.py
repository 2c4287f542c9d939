"""Long waits: what thousands of clients cost that long-poll one API process, and how soon each hears of its result."""

import asyncio
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median
from typing import Final
from uuid import UUID

import psycopg
from celery import Celery

from benchmarks import machine, results
from benchmarks.folder import temporary_folder
from benchmarks.latencies import percentile
from benchmarks.longpoll import Waiter, connect_all
from benchmarks.processes import Usage, usage
from benchmarks.servers import Servers, libpq, servers
from benchmarks.systems import Choice, System, running
from workers.messages import SESSIONS_QUEUE

WAIT: Final = 30  # seconds of one poll, the longest that there is

# Creates that are accepted, whose doorbell nobody has rung yet.
PENDING: Final = """
INSERT INTO session_tasks (id, kind, user_id, session_id, payload, due_at)
SELECT gen_random_uuid(), 'create', 'waiter-' || n, gen_random_uuid(), '{"package": "family"}', now() + interval '1 h'
FROM generate_series(1, %s) AS n
RETURNING id, user_id
"""
FINISHED: Final = """
SELECT id, extract(epoch FROM finished_at)::float8 FROM session_tasks WHERE id = ANY(%s) AND state = 'SUCCESS'
"""


@dataclass
class Waits:
    """What was measured of one API process.

    Args:
        idle: CPU seconds of the API for one second, and resident megabytes, by number of waiting clients.
        heard: milliseconds from the ring at the door to the answer at the client.
        told: milliseconds from the worker's transaction (its begin) to the answer at the client.
    """

    clients: int
    idle: dict[int, tuple[float, float]] = field(default_factory=dict)
    heard: list[float] = field(default_factory=list)
    told: list[float] = field(default_factory=list)
    rate: float = 0
    refused: int = 0  # polls answered by 503, of all clients
    facts: str = ""


def waits(
    clients: int, arrive: float, seconds: int, tell: int, rate: float, say: Callable[[str], None] = results.say
) -> Waits:
    """Measure.

    Args:
        clients: that wait.
        arrive: seconds over which they come; those who come at once ask again at once, every `WAIT` seconds.
        seconds: that all of them only wait.
        tell: of their tasks, that are finished then.
        rate: of those, a second.
        say: takes a line on what is done.
    """
    _raise_limit(2 * clients + 200)
    result = Waits(clients, rate=rate)
    with temporary_folder() as folder, servers(folder / "servers") as both:
        url = both.database("waits", users=1)
        result.facts = results.facts(machine.describe(**both.versions()), both.settings())
        with running("ours", Choice(), both, url, folder) as system:
            asyncio.run(_wait(result, system, both, arrive, seconds, tell, say))
    return result


def _raise_limit(files: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < files:
        raise SystemExit(f"{files} open files are needed, and the hard limit is {hard}: raise it with `ulimit -Hn`.")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, files), hard))


async def _wait(
    result: Waits, system: System, both: Servers, arrive: float, seconds: int, tell: int, say: Callable[[str], None]
) -> None:
    pids = {"api": system.processes.pids()["api"]}
    result.idle[0] = await _idle(pids, 5)
    with psycopg.connect(libpq(system.database_url), autocommit=True) as connection:
        tasks = connection.execute(PENDING, [result.clients]).fetchall()
        waiters = {task_id: Waiter(system.ports[0], str(task_id), user, WAIT) for task_id, user in tasks}
        await connect_all(list(waiters.values()), arrive)
        result.idle[result.clients] = await _idle(pids, seconds)
        say(f"{result.clients} wait: {result.idle[result.clients]}")
        chosen = list(waiters)[:: max(1, len(waiters) // tell)][:tell]
        rung = await _ring(result, both, chosen)
        async with asyncio.timeout(WAIT):
            answered = {task_id: await waiters[task_id].told for task_id in chosen}
        finished: dict[UUID, float] = dict(connection.execute(FINISHED, [chosen]).fetchall())
    result.heard = [(answered[one] - rung[one]) * 1000 for one in chosen]
    result.told = [(answered[one] - finished[one]) * 1000 for one in chosen]
    assert all(waiter.told.done() == (task_id in rung) for task_id, waiter in waiters.items()), "told too much"
    for waiter in waiters.values():
        result.refused += waiter.refused
        waiter.close()


async def _idle(pids: dict[str, list[int]], seconds: int) -> tuple[float, float]:
    """CPU seconds for each second, and resident megabytes."""
    before, began = usage(pids), time.monotonic()
    await asyncio.sleep(seconds)
    after: Usage = usage(pids)
    return after.since(before)["api"] / (time.monotonic() - began), after.rss["api"] / 1e6


async def _ring(result: Waits, both: Servers, chosen: list[UUID]) -> dict[UUID, float]:
    """Ring for one after the other; returns when."""
    app = Celery(broker=both.redis_url(0), set_as_current=False)
    rung: dict[UUID, float] = {}
    for task_id in chosen:
        rung[task_id] = time.time()
        await asyncio.to_thread(app.send_task, "sessions.create", [[str(task_id)]], queue=SESSIONS_QUEUE)
        await asyncio.sleep(1 / result.rate)
    return rung


def report(result: Waits, folder: str | None) -> None:
    """Print and keep it."""
    idle = [[f"{clients:,}", f"{100 * cpu:.1f} %", f"{rss:.0f}"] for clients, (cpu, rss) in result.idle.items()]
    rows = []
    for what, values in (("from the ring to the answer", result.heard), ("from the execution to it", result.told)):
        counts: dict[int, int] = {}
        for value in values:
            counts[round(value * 1000)] = counts.get(round(value * 1000), 0) + 1
        tail = percentile(counts, 0.99) / 1000
        rows.append([what, f"{median(values):.1f}", f"{tail:.1f}", f"{max(values):.1f}"])
    parts = [
        "# Long waits\n",
        result.facts,
        f"\n{result.clients:,} clients long-poll one API process, {WAIT} s a poll; {result.refused} polls got a 503.\n",
        results.table(["clients", "CPU of a core", "memory, MB"], idle),
        f"\n## Results told, {result.rate:g} a second, while all the others wait; in ms (goal: p99 within 50)\n",
        results.table(["", "p50", "p99", "greatest"], rows),
    ]
    data = {
        "idle": list(result.idle.items()),
        "heard": result.heard,
        "told": result.told,
        "rate": result.rate,
        "refused": result.refused,
    }
    results.write("waits", "\n".join(parts), data, folder)
