"""The comparison's report: rates, latencies, ratios round by round, and what each process used."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import machine
from benchmarks.compare import CHOOSING_CLIENTS, Comparison, Tried, medians
from benchmarks.measure import Measurement
from benchmarks.plot import draw
from benchmarks.results import facts, spread, table, write
from benchmarks.systems import Choice

# What issue 4 asks for: (title, figure, load, against, clients, bound, whether more is better).
GOALS = (
    ("throughput, ours / direct", "rate", "ours", "direct", 128, 2.0, True),
    ("throughput, ours / direct", "rate", "ours", "direct", 32, 1.2, True),
    ("p50, ours / direct", "p50", "ours", "direct", 1, 2.5, False),
    ("p99, ours / direct", "p99", "ours", "direct", 32, 1.0, False),
    ("throughput, ours / textbook", "rate", "ours", "textbook", 32, 6.0, True),
)


def report(result: Comparison, folder: str | None) -> None:
    """Print and keep it."""
    parts = [
        "# Side by side\n",
        facts(machine.describe(**result.versions), result.settings),
        f"\nMedian (least-greatest) of {result.rounds} rounds of {result.seconds} s; latencies in ms, uncorrected.\n",
        _figures(result),
        "\n## Ratios, round by round\n",
        _ratios(result),
        "\n## Goals\n",
        _goals(result),
        "\n## CPU seconds per 1,000 sessions\n",
        _usage(result, "cpu", 3),
        "\n## Resident memory, MB\n",
        _usage(result, "rss", 0),
        "\n## Processes\n",
        _choices(result),
    ]
    write("compare", "\n".join(parts), _data(result), folder)
    if folder:
        draw(result, Path(folder) / "compare.svg")


def ratios(result: Comparison, figure: str, load: str, against: str, clients: int) -> list[float]:
    """One load's figure over another's, round by round; none where one of them was not measured."""
    ours, theirs = result.measured.get((load, clients), []), result.measured.get((against, clients), [])
    return [getattr(a, figure) / getattr(b, figure) for a, b in zip(ours, theirs, strict=False)]


def _figures(result: Comparison) -> str:
    rows = []
    for clients in result.clients:
        for load in result.loads:
            found = result.measured[load, clients]
            rates, middles, tails = ([getattr(one, name) for one in found] for name in ("rate", "p50", "p99"))
            rows.append([clients, load, spread(rates, 0), spread(middles), spread(tails)])
    return table(["clients", "load", "sessions/s", "p50", "p99"], rows)


def _ratios(result: Comparison) -> str:
    rows = []
    for clients in result.clients:
        for against in ("direct", "textbook"):
            found = [ratios(result, figure, "ours", against, clients) for figure in ("rate", "p50", "p99", "work")]
            if found[0]:
                rows.append([clients, f"ours / {against}", *map(spread, found)])
    return table(["clients", "ratio", "throughput", "p50", "p99", "CPU for a session"], rows)


def _goals(result: Comparison) -> str:
    rows = []
    for title, figure, load, against, clients, bound, more in GOALS:
        found = ratios(result, figure, load, against, clients)
        if found:
            met = median(found) >= bound if more else median(found) <= bound
            sign = ">=" if more else "<="
            rows.append([f"{title}, {clients} clients", f"{sign} {bound}", spread(found), "met" if met else "missed"])
    return table(["goal", "bound", "measured", ""], rows)


def _usage(result: Comparison, figure: str, digits: int) -> str:
    first = result.clients[0]
    labels = list(dict.fromkeys(label for load in result.loads for label in _median(result, load, first, figure)))
    rows = []
    for clients in result.clients:
        for load in result.loads:
            found = _median(result, load, clients, figure)
            own = sum(value for label, value in found.items() if label != "wrk")
            cells = [f"{found[label]:.{digits}f}" if label in found else "" for label in labels]
            rows.append([clients, load, *cells, f"{own:.{digits}f}"])
    return table(["clients", "load", *labels, "all but wrk"], rows)


def _median(result: Comparison, load: str, clients: int, figure: str) -> dict[str, float]:
    found = result.measured[load, clients]
    return {label: median(getattr(one, figure)[label] for one in found) for label in getattr(found[0], figure)}


def _choices(result: Comparison) -> str:
    lines = [f"- {name}: {choice.describe(name)}" for name, choice in result.choices.items()]
    if not result.tried:
        return "\n".join([*lines, "", "Taken as given."]) + "\n"
    head = ["system", "processes", *map(str, CHOOSING_CLIENTS)]
    tables = [
        table(head, [[n, choice.describe(n), *(f"{rate:.0f}" for rate in medians(found))] for n, choice, found in some])
        for some in (_entries(result.finals), _entries(result.tried))
    ]
    return (
        "\n".join(lines)
        + "\n\nMedians of sessions/s at so many clients, side by side:\n\n"
        + tables[0]
        + "\n\nThey were the best of these, measured once and one after the other:\n\n"
        + tables[1]
    )


def _data(result: Comparison) -> dict[str, Any]:
    return {
        "machine": machine.describe(**result.versions),
        "settings": result.settings,
        "seconds": result.seconds,
        "choices": {name: choice.differences() for name, choice in result.choices.items()},
        **{
            key: [[name, choice.differences(), medians(found)] for name, choice, found in _entries(tried)]
            for key, tried in (("finals", result.finals), ("tried", result.tried))
        },
        "measured": [
            {"load": load, "clients": clients, "rounds": [one.as_json() for one in found]}
            for (load, clients), found in result.measured.items()
        ],
    }


def _entries(tried: Mapping[str, Tried]) -> Iterator[tuple[str, Choice, list[Measurement]]]:
    for name, entries in tried.items():
        for choice, found in entries:
            yield name, choice, found
