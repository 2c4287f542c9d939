"""The next machine: throughput by numbers of workers and API processes, and which of them has no core left."""

import itertools
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Final

from benchmarks import machine, results
from benchmarks.folder import temporary_folder
from benchmarks.measure import Measurement, measure
from benchmarks.requests import creates
from benchmarks.servers import servers
from benchmarks.systems import LOADS, Choice, running

LOAD: Final = "ours"


@dataclass
class Scale:
    """What was measured: one entry a round for each number of API processes and of workers."""

    clients: int
    measured: dict[tuple[int, int], list[Measurement]] = field(default_factory=dict)
    facts: str = ""


def scale(
    apis: Sequence[int],
    workers: Sequence[int],
    clients: int,
    rounds: int,
    seconds: int,
    say: Callable[[str], None] = results.say,
) -> Scale:
    """Measure each combination; a worker is a Celery worker of its own with one child."""
    result = Scale(clients)
    with temporary_folder() as folder, servers(folder / "servers") as both:
        requests, database = creates(folder / "requests"), both.database("scale")
        result.facts = results.facts(machine.describe(**both.versions()), both.settings())
        for _ in range(rounds):
            both.checkpoint()
            for api, count in itertools.product(apis, workers):
                choice = Choice(api=api, workers=count, children=1)
                with running("ours", choice, both, database, folder) as system:
                    target = LOADS[LOAD][1]
                    measure(system, target, both, requests, clients, 2)
                    found = measure(system, target, both, requests, clients, seconds)
                result.measured.setdefault((api, count), []).append(found)
                say(
                    f"{api} API, {count} workers  {found.rate:7.0f}/s  p50 {found.p50:7.2f} ms  p99 {found.p99:7.2f} ms"
                )
    return result


def report(result: Scale, folder: str | None) -> None:
    """Print and keep it. Cores: CPU seconds for each second of load."""
    labels = ["api", "worker", "postgres", "redis", "maintenance", "beat", "wrk"]
    rows = []
    for (api, count), found in result.measured.items():
        cores = {label: median(one.cpu[label] * one.rate / 1000 for one in found) for label in labels}
        spreads = [results.spread([getattr(one, key) for one in found], digits) for key, digits in _FIGURES]
        rows.append([api, count, *spreads, *(f"{cores[label]:.2f}" for label in labels), f"{sum(cores.values()):.2f}"])
    parts = [
        "# The next machine\n",
        result.facts,
        f"\n{result.clients} clients; the right half is in cores, of which this machine has {os.cpu_count()}.\n",
        results.table(["API processes", "workers", "sessions/s", "p50, ms", "p99, ms", *labels, "all"], rows),
    ]
    data = [[*key, [one.as_json() for one in found]] for key, found in result.measured.items()]
    results.write("scale", "\n".join(parts), data, folder)


_FIGURES: Final = (("rate", 0), ("p50", 1), ("p99", 1))
