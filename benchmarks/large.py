"""Large tables: what each request and each sweep costs where millions of sessions lie, against an empty table.

All sizes are up at once, in databases of their own, and take turns within each round. What is asked for by requests is
of users of their own, the same at every size; only the sessions to validate are drawn from the whole table.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Final

from benchmarks import machine, requests, results, rows, sweeping
from benchmarks.folder import temporary_folder
from benchmarks.load import Target
from benchmarks.measure import Measurement, measure
from benchmarks.servers import Servers, servers
from benchmarks.systems import CHOICES, System, running

CLIENTS: Final = 32
SWEPT: Final = 20_000  # sessions that a sweep finds
USERS: Final = {"create": (1, 10_000), "renew": (10_001, 20_000), "complete": (20_001, 100_000)}
TARGETS: Final = {
    "create": Target(201, "session_id", "wait=30"),
    "validate": Target(200, "id", once=False),
    "renew": Target(200, "session_id", "wait=30"),
    "complete": Target(200, "session_id", "wait=30", state="completed"),
}


@dataclass
class Sizes:
    """What was measured: one entry a round for each operation and number of rows."""

    rows: Sequence[int]
    filled: dict[int, float] = field(default_factory=dict)
    bytes: dict[int, dict[str, int]] = field(default_factory=dict)
    requests: dict[tuple[str, int], list[Measurement]] = field(default_factory=dict)
    sweeps: dict[tuple[str, int], list[float]] = field(default_factory=dict)  # rows per second
    facts: str = ""


def large(sizes: Sequence[int], rounds: int, seconds: int, say: Callable[[str], None] = results.say) -> Sizes:
    """Measure tables of `sizes` rows beside what the requests need themselves."""
    result = Sizes(sizes)
    with temporary_folder() as folder, servers(folder / "servers") as both, ExitStack() as stack:
        systems: dict[int, System] = {}
        for number, size in enumerate(sizes):
            url = both.database(f"rows_{size}", users=USERS["complete"][1])
            result.filled[size] = rows.fill(url, size)
            result.bytes[size] = rows.sizes(url)
            (folder / str(size)).mkdir()
            _write_requests(folder / str(size), url)
            say(f"{size} rows made in {result.filled[size]:.0f} s")
            system = running("ours", CHOICES["ours"], both, url, folder, without=("maintenance", "beat"), number=number)
            systems[size] = stack.enter_context(system)
        result.facts = results.facts(machine.describe(**both.versions()), both.settings())
        both.checkpoint()
        for size in sizes:
            for name in ("create", "validate", "renew"):
                _measured(both, systems[size], folder / str(size), name, 2)
        done = dict.fromkeys(sizes, 0)
        for number in range(rounds):
            turn = [*sizes[number % len(sizes) :], *sizes[: number % len(sizes)]]
            for name in TARGETS:
                for size in turn:
                    found = _measured(both, systems[size], folder / str(size), name, seconds, done[size])
                    done[size] += (found.sessions + CLIENTS) * (name == "complete")
                    result.requests.setdefault((name, size), []).append(found)
                    say(f"{size:>9} rows  {name:<9} {found.rate:7.0f}/s  p50 {found.p50:6.2f}  p99 {found.p99:6.2f} ms")
            for size in turn:
                for name, rate in _swept(both, systems[size].database_url).items():
                    result.sweeps.setdefault((name, size), []).append(rate)
                    say(f"{size:>9} rows  {name:<9} {rate:7.0f}/s")
    return result


def _write_requests(folder: Path, url: str) -> None:
    requests.creates(folder / "create", USERS["create"][1])
    mine = "SELECT id, user_id FROM checkout_sessions WHERE user_id BETWEEN '{}' AND '{}'"
    for name, body in (("renew", {"package": "gold"}), ("complete", None)):
        query = mine.format(*map(requests.user_id, USERS[name]))

        def request(session_id: Any, user: str, name: str = name, body: Any = body) -> str:
            sent = body or {"payment_reference": f"paid {session_id}"}
            return requests.line("POST", f"/api/sessions/{session_id}/{name}", user, sent)

        requests.write(folder / name, rows.requests_for(url, query, request, 100_000))
    everything = "SELECT id, user_id FROM checkout_sessions"
    validate = rows.requests_for(
        url, everything, lambda id_, user: requests.line("GET", f"/api/sessions/{id_}", user), 20_000
    )
    requests.write(folder / "validate", validate)


def _measured(
    both: Servers, system: System, folder: Path, name: str, seconds: int, offset: int | None = None
) -> Measurement:
    return measure(system, TARGETS[name], both, folder / name, CLIENTS, seconds, offset if name == "complete" else None)


def _swept(both: Servers, url: str) -> dict[str, float]:
    """Rows per second of each sweep."""
    maintenance = sweeping.sweeps(both, url)
    sweeping.execute(url, sweeping.OVERDUE, SWEPT)
    marked, marking = sweeping.run(maintenance.expire_sessions)
    sweeping.execute(url, sweeping.OLD)
    deleted, deleting = sweeping.run(maintenance.delete_sessions)
    maintenance.engine.dispose()
    assert marked == deleted == SWEPT, (marked, deleted)
    return {"expire": marked / marking, "delete": deleted / deleting}


def report(result: Sizes, folder: str | None) -> None:
    """Print and keep it. A ratio is of the time that one takes, against the first size, round by round."""
    base = result.rows[0]
    lines = []
    for name in TARGETS:
        for size in result.rows:
            found, against = result.requests[name, size], result.requests[name, base]
            pairs = list(zip(found, against, strict=True))
            figures = [results.spread([getattr(one, key) for one in found], digits) for key, digits in _FIGURES]
            ratios = [
                results.spread([b.rate / a.rate for a, b in pairs]),
                results.spread([a.p50 / b.p50 for a, b in pairs]),
            ]
            lines.append([name, f"{size:,}", *figures, *ratios])
    for name in ("expire", "delete"):
        for size in result.rows:
            rates, first = result.sweeps[name, size], result.sweeps[name, base]
            ratio = results.spread([b / a for a, b in zip(rates, first, strict=True)])
            lines.append([name, f"{size:,}", results.spread(rates, 0), "", "", ratio, ""])
    head = ["", "rows", "per second", "p50, ms", "p99, ms", "time each, against the first", "p50, against the first"]
    disk = [
        [f"{size:,}", f"{result.filled[size]:.0f}", *(f"{one / 1e6:.0f}" for one in result.bytes[size].values())]
        for size in result.rows
    ]
    parts = [
        "# Large tables\n", result.facts, f"\n{CLIENTS} clients; sweeps find {SWEPT:,} rows each.\n",
        results.table(head, lines), "\n## What was made\n",
        results.table(["rows", "made in, s", *(f"{name}, MB" for name in result.bytes[base])], disk),
    ]  # fmt: skip
    data = {
        "requests": [[*key, [one.as_json() for one in found]] for key, found in result.requests.items()],
        "sweeps": [[*key, found] for key, found in result.sweeps.items()],
        "medians": [[*key, median(one.p50 for one in found)] for key, found in result.requests.items()],
        "bytes": result.bytes,
    }
    results.write("large", "\n".join(parts), data, folder)


_FIGURES: Final = (("rate", 0), ("p50", 2), ("p99", 2))
