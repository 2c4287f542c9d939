"""The comparison: all systems up at once on one Postgres, alternating within each round."""

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from benchmarks import results
from benchmarks.folder import temporary_folder
from benchmarks.measure import Measurement, measure
from benchmarks.requests import creates
from benchmarks.servers import Servers, servers
from benchmarks.systems import CANDIDATES, CHOICES, LOADS, Choice, System, running

CHOOSING_CLIENTS = (32, 128)
CHOOSING_SECONDS = 2
FINALISTS = 2  # candidates of each system that are measured again, side by side
FINAL_ROUNDS = 3

Tried = list[tuple[Choice, list[Measurement]]]
Say = Callable[[str], None]  # takes a line on what is done


@dataclass
class Comparison:
    """What was measured: one entry a round for each load and number of clients."""

    clients: Sequence[int]
    loads: Sequence[str]
    choices: dict[str, Choice]
    rounds: int
    seconds: int
    settings: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    tried: dict[str, Tried] = field(default_factory=dict)
    finals: dict[str, Tried] = field(default_factory=dict)
    measured: dict[tuple[str, int], list[Measurement]] = field(default_factory=dict)


def compare(
    loads: Sequence[str],
    clients: Sequence[int],
    rounds: int,
    seconds: int,
    choices: dict[str, Choice] | None,
    say: Say = results.say,
) -> Comparison:
    """Measure.

    Args:
        loads: names of `LOADS`.
        clients: numbers of concurrent clients.
        rounds: each holds every load at every number of clients.
        seconds: of one measurement.
        choices: by system; None measures the candidates first.
    """
    names = list(dict.fromkeys(LOADS[load][0] for load in loads))
    with temporary_folder() as folder, servers(folder / "servers") as both:
        requests = creates(folder / "requests")
        databases = {name: both.database(name) for name in names}
        result = Comparison(clients, loads, choices or dict(CHOICES), rounds, seconds, both.settings(), both.versions())
        if choices is None:
            result.tried = {name: _tried(name, both, databases[name], requests, say) for name in names}
            for name, tried in result.tried.items():
                result.finals[name] = _finals(name, both, databases[name], requests, ranked(tried)[:FINALISTS], say)
            result.choices = {name: ranked(finals)[0] for name, finals in result.finals.items()}
        with ExitStack() as stack:
            systems = {
                name: stack.enter_context(running(name, result.choices[name], both, databases[name], folder))
                for name in names
            }
            for name in names:  # plans, caches and connections
                target = next(LOADS[load][1] for load in loads if LOADS[load][0] == name)
                measure(systems[name], target, both, requests, 32, min(2, seconds))
            _rounds(result, systems, both, requests, say)
    return result


def _rounds(result: Comparison, systems: dict[str, System], both: Servers, requests: Path, say: Say) -> None:
    orders = itertools.cycle([*result.loads[n:], *result.loads[:n]] for n in range(len(result.loads)))
    for number in range(1, result.rounds + 1):
        both.checkpoint()
        for clients in result.clients:
            for load in next(orders):
                name, target = LOADS[load]
                found = measure(systems[name], target, both, requests, clients, result.seconds)
                result.measured.setdefault((load, clients), []).append(found)
                say(
                    f"round {number}  {clients:>3} clients  {load:<18} {found.rate:7.0f}/s"
                    f"  p50 {found.p50:7.2f} ms  p99 {found.p99:7.2f} ms"
                )


def _tried(name: str, both: Servers, database_url: str, requests: Path, say: Say) -> Tried:
    """Each candidate at a few and at many clients."""
    tried = []
    for choice in CANDIDATES[name]:
        with running(name, choice, both, database_url, requests.parent) as system:
            found = _tries(system, both, requests, warm=False)
        tried.append((choice, found))
        say(f"choosing  {name}: {choice.describe(name)}  " + "  ".join(f"{one.rate:.0f}/s" for one in found))
    return tried


def _finals(
    name: str, both: Servers, database_url: str, requests: Path, finalists: Sequence[Choice], say: Say
) -> Tried:
    """The same of all finalists, up at once and taking turns: what a machine that others use gives, all of them get."""
    finals: Tried = [(choice, []) for choice in finalists]
    with ExitStack() as stack:
        systems = [
            stack.enter_context(running(name, choice, both, database_url, requests.parent, number=number))
            for number, choice in enumerate(finalists)
        ]
        for number in range(FINAL_ROUNDS):
            for (_, found), system in zip(finals, systems, strict=True):
                found += _tries(system, both, requests, warm=number > 0)
    for choice, found in finals:
        say(f"chosen from  {name}: {choice.describe(name)}  " + "  ".join(f"{rate:.0f}/s" for rate in medians(found)))
    return finals


def _tries(system: System, both: Servers, requests: Path, warm: bool) -> list[Measurement]:
    target = next(target for name, target in LOADS.values() if name == system.name)
    if not warm:
        measure(system, target, both, requests, 32, 1)
    return [measure(system, target, both, requests, clients, CHOOSING_SECONDS) for clients in CHOOSING_CLIENTS]


def medians(found: Sequence[Measurement]) -> list[float]:
    """Sessions per second at each of CHOOSING_CLIENTS, of measurements that go through these again and again."""
    step = len(CHOOSING_CLIENTS)
    return [median(one.rate for one in found[n::step]) for n in range(step)]


def ranked(tried: Iterable[tuple[Choice, list[Measurement]]]) -> list[Choice]:
    """The highest throughput first, over the numbers of clients in the geometric mean."""
    return [choice for choice, _ in sorted(tried, key=lambda entry: -math.prod(medians(entry[1])))]
