"""Results as Markdown and JSON: to the screen, and into a folder if one is named."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import median
from typing import Any


def say(line: str) -> None:
    """A line on what is done, seen at once."""
    print(line, flush=True)


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A Markdown table; the first column to the left, the others to the right."""
    lines = [f"| {' | '.join(head)} |", f"|---|{'---:|' * (len(head) - 1)}"]
    lines += [f"| {' | '.join(map(str, row))} |" for row in rows]
    return "\n".join(lines) + "\n"


def spread(values: Sequence[float], digits: int = 2) -> str:
    """The median, and the least and the greatest value."""
    low, middle, high = (f"{value:.{digits}f}" for value in (min(values), median(values), max(values)))
    return f"{middle} ({low}-{high})"


def facts(machine: dict[str, str], settings: dict[str, str]) -> str:
    """The machine, in a line each."""
    lines = [f"- {name}: {value}" for name, value in machine.items()]
    lines.append("- Postgres: " + ", ".join(f"`{name}={value}`" for name, value in settings.items()))
    return "\n".join(lines) + "\n"


def write(name: str, markdown: str, data: Any, folder: str | None) -> None:
    """Print the Markdown, and keep it with the data it was made of."""
    print(markdown)
    if folder:
        target = Path(folder)
        target.mkdir(parents=True, exist_ok=True)
        (target / f"{name}.md").write_text(markdown)
        (target / f"{name}.json").write_text(json.dumps(data, indent=1, default=str) + "\n")
