"""Maintenance at speed: the service's sweeps against the one raw statement, and what shoppers notice of them.

Each measurement is on a fresh copy, file by file, of one prepared database, so that both ways find the same pages.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Final

import psycopg

from benchmarks import machine, requests, results, rows, sweeping
from benchmarks.folder import temporary_folder
from benchmarks.load import Target
from benchmarks.measure import measure
from benchmarks.servers import Servers, libpq, servers
from benchmarks.systems import CHOICES, running

OLD = """
INSERT INTO checkout_sessions (
    id, user_id, status, package, step, data, origin, line_id, line_position, line_began_at, created_at, expires_at
)
SELECT id, 'old-' || n, 'expired', 'family', 'details', '{"adults": 2}', 'created', id, 0, began, began,
    began + interval '1 day'
FROM (
    SELECT n, gen_random_uuid() AS id, now() - interval '7 days' - n * interval '0.1 s' AS began
    FROM generate_series(1, %s) AS n
) AS made
"""
RAW: Final = {
    "expire": "UPDATE checkout_sessions SET status = 'expired' WHERE status = 'active' AND expires_at <= now()",
    "delete": """
        DELETE FROM checkout_sessions
        WHERE status <> 'completed' AND created_at <= now() - interval '7 days'
    """,
}
DUE: Final = {
    "expire": "SELECT count(*) FROM checkout_sessions WHERE status = 'active' AND expires_at <= now()",
    "delete": """
        SELECT count(*) FROM checkout_sessions WHERE status <> 'completed' AND created_at <= now() - interval '7 days'
    """,
}
# Shoppers who complete at a moderate rate, as most of a day is: 16 of them, each every 80 ms in the mean.
CLIENTS: Final = 16
PAUSE: Final = 80
USERS: Final = 60_000
COMPLETE: Final = Target(200, "session_id", "wait=30", state="completed")


@dataclass
class Upkeep:
    """What was measured: rows per second, and milliseconds."""

    rows: int
    rounds: int
    rates: dict[tuple[str, str], list[float]] = field(default_factory=dict)  # by sweep, and "service" or "raw"
    busy_rates: dict[str, list[float]] = field(default_factory=dict)  # of the service's, while shoppers complete
    p99: dict[tuple[str, str], list[float]] = field(default_factory=dict)  # by sweep, and "with" or "without"
    facts: str = ""


def upkeep(count: int, rounds: int, seconds: int, say: Callable[[str], None] = results.say) -> Upkeep:
    """Measure sweeps over `count` overdue and `count` old sessions, and completes for `seconds` at a time."""
    result = Upkeep(count, rounds)
    with temporary_folder() as folder, servers(folder / "servers") as both:
        prepared = both.database("prepared", users=USERS)
        for statement in (OLD, sweeping.OVERDUE):
            sweeping.execute(prepared, statement, count)
        sweeping.execute(prepared, "VACUUM (FREEZE, ANALYZE)")
        result.facts = results.facts(machine.describe(**both.versions()), both.settings())
        for number in range(rounds):
            for way in ("service", "raw") if number % 2 == 0 else ("raw", "service"):
                with both.copied(prepared, f"{way}_{number}") as url:
                    for sweep, rate in _rates(both, url, way, count).items():
                        result.rates.setdefault((sweep, way), []).append(rate)
                        say(f"round {number + 1}  {sweep}  {way:<7} {rate:8.0f} rows/s")
            with both.copied(prepared, f"busy_{number}") as url:
                _beside_shoppers(result, both, url, folder, seconds, say)
    return result


def _rates(both: Servers, url: str, way: str, count: int) -> dict[str, float]:
    both.checkpoint()
    maintenance = sweeping.sweeps(both, url)
    service = {"expire": maintenance.expire_sessions, "delete": maintenance.delete_sessions}
    rates = {}
    for sweep, statement in RAW.items():
        began = time.perf_counter()
        done = sweeping.run(service[sweep])[0] if way == "service" else sweeping.execute(url, statement)
        assert done == count, f"{done} of {count} rows"
        rates[sweep] = done / (time.perf_counter() - began)
    maintenance.engine.dispose()
    return rates


def _beside_shoppers(
    result: Upkeep, both: Servers, url: str, folder: Path, seconds: int, say: Callable[[str], None]
) -> None:
    """Complete sessions before, and then while each sweep runs."""
    file = _completes(folder / "requests", url)
    maintenance = sweeping.sweeps(both, url)
    done = 0
    with running("ours", CHOICES["ours"], both, url, folder, without=("maintenance", "beat")) as system:

        def completes(seconds: int = seconds) -> float:
            nonlocal done
            found = measure(system, COMPLETE, both, file, CLIENTS, seconds, offset=done, pause=PAUSE)
            done += found.sessions + CLIENTS
            return found.p99

        completes(3)
        for sweep, method in (("expire", maintenance.expire_sessions), ("delete", maintenance.delete_sessions)):
            both.checkpoint()
            without = median(completes() for _ in range(2))
            due, began = _due(url, sweep), time.perf_counter()
            thread = threading.Thread(target=sweeping.run, args=(method,))
            thread.start()
            during = [completes() for _ in range(2)]
            rate = (due - _due(url, sweep)) / (time.perf_counter() - began)
            assert thread.is_alive(), "the sweep was done before the shoppers"
            thread.join()
            result.busy_rates.setdefault(sweep, []).append(rate)
            result.p99.setdefault((sweep, "without"), []).append(without)
            result.p99.setdefault((sweep, "with"), []).append(median(during))
            say(f"completes  p99 {without:.1f} ms, while {sweep} runs ({rate:.0f} rows/s) {median(during):.1f} ms")
    maintenance.engine.dispose()


def _due(url: str, sweep: str) -> int:
    with psycopg.connect(libpq(url)) as connection:
        row = connection.execute(DUE[sweep]).fetchone()
    assert row is not None
    return int(row[0])


def _completes(file: Path, url: str) -> Path:
    def request(session_id: Any, user: str) -> str:
        body = {"payment_reference": f"paid {session_id}"}
        return requests.line("POST", f"/api/sessions/{session_id}/complete", user, body)

    query = "SELECT id, user_id FROM checkout_sessions WHERE user_id LIKE 'user-%'"
    return requests.write(file, rows.requests_for(url, query, request, USERS))


def report(result: Upkeep, folder: str | None) -> None:
    """Print and keep it."""
    rates, tails = [], []
    for sweep in RAW:
        service, raw = result.rates[sweep, "service"], result.rates[sweep, "raw"]
        ratio = results.spread([a / b for a, b in zip(service, raw, strict=True)])
        goal = {"expire": 0.8, "delete": 0.5}[sweep]
        rates.append([sweep, results.spread(service, 0), results.spread(raw, 0), ratio, f">= {goal}"])
        quiet, busy = result.p99[sweep, "without"], result.p99[sweep, "with"]
        ratio = results.spread([a / b for a, b in zip(busy, quiet, strict=True)])
        spreads = [results.spread(values, 1) for values in (quiet, busy)]
        tails.append([sweep, *spreads, ratio, "<= 1.5", results.spread(result.busy_rates[sweep], 0)])
    head = ["sweep", "p99 without, ms", "p99 with, ms", "ratio", "goal", "rows/s beside shoppers"]
    parts = [
        "# Maintenance at speed\n",
        result.facts,
        f"\n{result.rows:,} rows each, {result.rounds} rounds, each on a fresh copy of the same database.\n",
        results.table(["sweep", "service, rows/s", "raw statement, rows/s", "ratio", "goal"], rates),
        f"\n## Completes beside it: {CLIENTS} clients, one each {PAUSE} ms in the mean\n",
        results.table(head, tails),
    ]
    data = {
        "rates": [[*key, values] for key, values in result.rates.items()],
        "p99": [[*key, values] for key, values in result.p99.items()],
        "busy_rates": result.busy_rates,
    }
    results.write("upkeep", "\n".join(parts), data, folder)
