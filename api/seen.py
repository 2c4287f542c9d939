"""What was seen of Postgres and Redis, as values."""

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime

from psycopg.rows import TupleRow

from db.figures import Figures
from db.vitals import WAITS


@dataclass(frozen=True, slots=True)
class Member:
    """A worker or a beat, and how long ago it was heard."""

    role: str
    queue: str
    name: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Run:
    """A maintenance task's runs, as `vitals.MAINTENANCE` finds them."""

    task: str
    since_success: float | None
    took: float | None
    rows: int | None
    failed: bool
    succeeded_24h: int
    failed_24h: int


@dataclass(frozen=True, slots=True)
class Tables:
    """Postgres, now, as `vitals.VITALS` finds it."""

    pending: float
    oldest_pending_seconds: float
    rung_again: float
    attempts: float
    overdue: float
    oldest_overdue_seconds: float
    given_up_24h: float
    connections_limit: float
    connections: float
    runs: list[Run]


@dataclass(frozen=True, slots=True)
class Broker:
    """Redis, now. `memory_limit` is 0 where there is none; both are None where Redis does not say."""

    messages: dict[str, int]
    members: list[Member]
    memory: int | None
    memory_limit: int | None


@dataclass(slots=True)
class Finished:
    """What finished since this process began to look; keys end with the bucket, and counts only grow."""

    counts: Counter[tuple[str, str, str, int]] = field(default_factory=Counter)
    sums: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    until: datetime | None = None

    def add(self, rows: list[TupleRow]) -> None:
        """Add what `vitals.FINISHED` found."""
        for measure, kind, label, bucket, count, total, until in rows:
            if measure == "until":
                self.until = until
            else:
                self.counts[measure, kind, label, bucket] += count
                self.sums[measure, kind, label] += total

    def waits(self) -> Counter[int]:
        """Of all kinds, by bucket."""
        found: Counter[int] = Counter()
        for (measure, _, _, bucket), count in self.counts.items():
            if measure == "wait":
                found[bucket] += count
        return found


@dataclass(frozen=True, slots=True)
class Sample:
    """One point of the plots.

    Args:
        at: seconds since the epoch.
        rate: tasks finished a second.
        wait: seconds within which nineteen of twenty were taken up; None if there were none.
    """

    at: float
    active: int | None
    pending: float | None
    oldest: float | None
    rate: float
    wait: float | None


def wait_of(waits: Counter[int], share: float = 0.95) -> float | None:
    """The bound of the bucket that this share of the waits does not pass."""
    total, seen = waits.total(), 0
    for bucket in sorted(waits):
        seen += waits[bucket]
        if seen >= share * total:
            return WAITS[min(bucket, len(WAITS) - 1)]
    return None


@dataclass(frozen=True, slots=True)
class Look:
    """What was seen; None is what could not be."""

    postgres: bool
    tables: Tables | None
    broker: Broker | None
    figures: Figures | None
    figures_seconds: float
