"""Bloat: what is left of the table's size when sessions have come and gone, round after round.

Each round adds as many sessions as are there, expires them, and deletes them, as a week of shoppers does in time. Then
autovacuum has its time. It looks every five seconds here instead of every minute: a round takes seconds, not days.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import psycopg

from benchmarks import machine, results, rows, sweeping
from benchmarks.folder import temporary_folder
from benchmarks.servers import Servers, libpq, servers

# Storage parameters of checkout_sessions, tried one set after another; the first is whatever the migration made.
PROPOSALS: Final = {
    "as migrated": "",
    "2 %": "autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_insert_scale_factor = 0.05",
    "1,000 rows, unthrottled": "autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000,"
    " autovacuum_vacuum_cost_delay = 0",
}
PATIENCE: Final = 60.0  # seconds that autovacuum has for a round
SIZE: Final = (
    "SELECT pg_table_size(name), pg_indexes_size(name) FROM (SELECT 'checkout_sessions'::regclass AS name) AS t"
)
DEAD: Final = "SELECT n_dead_tup, autovacuum_count FROM pg_stat_user_tables WHERE relname = 'checkout_sessions'"


@dataclass
class Bloat:
    """Megabytes of the table and of its indexes, before the first round and after each, by proposal."""

    rows: int
    sizes: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    vacuums: dict[str, int] = field(default_factory=dict)
    rates: dict[str, list[tuple[float, float]]] = field(default_factory=dict)  # rows per second: expired, deleted
    facts: str = ""


def bloat(count: int, rounds: int, say: Callable[[str], None] = results.say) -> Bloat:
    """Measure `rounds` of `count` sessions each, over a table of as many that stay."""
    result = Bloat(count)
    with temporary_folder() as folder, servers(folder / "servers", autovacuum_naptime="5s") as both:
        result.facts = results.facts(machine.describe(**both.versions()), both.settings())
        prepared = both.database("prepared", users=1)
        rows.fill(prepared, count)
        for number, (name, parameters) in enumerate(PROPOSALS.items()):
            with both.copied(prepared, f"bloat_{number}") as url:
                if parameters:
                    sweeping.execute(url, f"ALTER TABLE checkout_sessions SET ({parameters})")
                result.sizes[name] = [_size(url)]
                for _ in range(rounds):
                    result.rates.setdefault(name, []).append(_round(both, url, count))
                    result.vacuums[name] = _settle(url)
                    result.sizes[name].append(_size(url))
                    say(f"{name}: table and indexes {result.sizes[name][-1]} MB, {result.vacuums[name]} vacuums")
    return result


def _round(both: Servers, url: str, count: int) -> tuple[float, float]:
    maintenance = sweeping.sweeps(both, url)
    sweeping.execute(url, sweeping.OVERDUE, count)
    expired, expiring = sweeping.run(maintenance.expire_sessions)
    sweeping.execute(url, sweeping.OLD)
    deleted, deleting = sweeping.run(maintenance.delete_sessions)
    maintenance.engine.dispose()
    return expired / expiring, deleted / deleting


def _settle(url: str) -> int:
    """Wait for autovacuum; returns how often it ran so far."""
    deadline = time.monotonic() + PATIENCE
    with psycopg.connect(libpq(url), autocommit=True) as connection:
        while True:
            dead, vacuums = _row(connection, DEAD)
            if dead == 0 or time.monotonic() > deadline:
                return int(vacuums)
            time.sleep(1)


def _size(url: str) -> tuple[float, float]:
    with psycopg.connect(libpq(url), autocommit=True) as connection:
        table, indexes = _row(connection, SIZE)
    return round(table / 1e6, 1), round(indexes / 1e6, 1)


def _row(connection: psycopg.Connection[Any], query: str) -> tuple[Any, ...]:
    row = connection.execute(query).fetchone()
    assert row is not None
    return tuple(row)


def report(result: Bloat, folder: str | None) -> None:
    """Print and keep it."""
    lines = []
    for name, sizes in result.sizes.items():
        (table, indexes), (last_table, last_indexes) = sizes[0], sizes[-1]
        expired, deleted = zip(*result.rates[name], strict=True)
        lines.append([
            name, f"{table} + {indexes}", " ".join(f"{sum(size):.0f}" for size in sizes[1:]),
            f"{(last_table + last_indexes) / (table + indexes):.2f}", result.vacuums[name],
            results.spread(expired, 0), results.spread(deleted, 0),
        ])  # fmt: skip
    head = ["autovacuum", "before: table + indexes, MB", "after each round, MB", "last / first", "vacuums",
            "expired/s", "deleted/s"]  # fmt: skip
    parts = [
        "# Bloat\n", result.facts,
        f"\n{result.rows:,} sessions that stay; each round adds as many, expires and deletes them.\n",
        results.table(head, lines), "\nThe sets of storage parameters:\n",
        "".join(f"- {name}: `{parameters or 'none'}`\n" for name, parameters in PROPOSALS.items()),
    ]  # fmt: skip
    results.write("bloat", "\n".join(parts), {"sizes": result.sizes, "rates": result.rates}, folder)
