"""What this process measures itself, where it happens; all else of /metrics is counted when it is asked for."""

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, disable_created_metrics

disable_created_metrics()  # type: ignore[no-untyped-call]  # twice the lines, and Prometheus makes nothing of them
REGISTRY: Final = CollectorRegistry()
ProcessCollector(registry=REGISTRY)

_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)

ACCEPT: Final = Histogram(
    "checkout_sessions_accept_seconds",
    "From a write's arrival until its task is committed",
    buckets=_SECONDS,
    registry=REGISTRY,
)
ANSWER: Final = Histogram(
    "checkout_sessions_answer_seconds",
    "From a write's arrival until its result is at hand, of those that waited for it",
    buckets=_SECONDS,
    registry=REGISTRY,
)
ACCEPT_BATCH: Final = Histogram(
    "checkout_sessions_accept_batch_tasks",
    "Requests that one statement accepted",
    buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256),
    registry=REGISTRY,
)
DOORBELLS_LOST: Final = Counter(
    "checkout_sessions_doorbells_lost",
    "Messages that Redis did not take; their tasks are rung again",
    registry=REGISTRY,
)
PROBLEMS: Final = Counter("checkout_sessions_problems", "Answers that were a problem", ["code"], registry=REGISTRY)
