"""What was seen and measured, as Prometheus wants it: names, units, labels from small sets."""

from collections.abc import Iterator
from typing import Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from api.measurements import REGISTRY
from api.seen import Broker, Finished, Look, Tables
from api.state import State
from db import vitals
from db.figures import Figures
from workers.heartbeats import BEAT, WORKER
from workers.messages import CHECK_INVARIANTS, DELETE_SESSIONS, EXPIRE_SESSIONS, PURGE_RECORDS
from workers.settings import WorkerSettings

HEARD_SECONDS: Final = 15  # a worker or a beat that was heard within them is there: it speaks every other second

Sample = tuple[list[str], float]


async def exposition(parts: State) -> bytes:
    """The text of /metrics. It answers whatever is down, and says what."""
    found = _Found(await parts.watch.look(), parts)
    registry = CollectorRegistry()
    registry.register(found)
    return generate_latest(registry) + generate_latest(REGISTRY)


class _Found(Collector):
    def __init__(self, look: Look, parts: State) -> None:
        self._look = look
        self._parts = parts

    def collect(self) -> Iterator[Metric]:
        look = self._look
        yield _gauge("postgres_up", "Whether Postgres answers", look.postgres)
        yield _gauge("redis_up", "Whether Redis answers", look.broker is not None)
        if look.tables:
            yield from _tables(look.tables)
        yield from _intervals(self._parts.settings)
        if look.broker:
            yield from _broker(look.broker)
        if look.figures:
            yield from _figures(look.figures, look.figures_seconds)
        yield from _finished(self._parts.watch.finished)
        pools = self._parts.pools()
        used = [([name], in_use) for name, (in_use, _) in pools.items()]
        sizes = [([name], size) for name, (_, size) in pools.items()]
        yield _gauges("pool_in_use", "This process's connections to Postgres that are in use", ["pool"], used)
        yield _gauges("pool_size", "This process's connections to Postgres at most", ["pool"], sizes)
        yield _gauge("waiting_requests", "Tasks that clients of this process wait for", self._parts.results.waiting)


def _tables(now: Tables) -> Iterator[Metric]:
    yield _gauge("pending_tasks", "Accepted tasks that are not finished", now.pending)
    yield _gauge("oldest_pending_task_seconds", "Age of the oldest pending task", now.oldest_pending_seconds)
    yield _gauge("pending_redelivered_tasks", "Pending tasks whose doorbell was rung again", now.rung_again)
    yield _gauge("pending_attempts", "Failed executions of the pending task that has most", now.attempts)
    yield _gauge("overdue_sessions", "Sessions past their expiry that are not marked, up to 10000", now.overdue)
    yield _gauge("oldest_overdue_session_seconds", "Age of the oldest expiry not marked", now.oldest_overdue_seconds)
    yield _gauge(
        "given_up_tasks_24h", "Tasks given up in 24 hours, up to 1000, each a fault: `make retry`", now.given_up_24h
    )
    yield _gauge("postgres_connections", "Client connections of the whole server", now.connections)
    yield _gauge("postgres_connections_limit", "max_connections of Postgres", now.connections_limit)
    names = [([run.task], run) for run in now.runs]
    known = [(name, run) for name, run in names if run.since_success is not None]
    yield _gauges(
        "maintenance_since_success_seconds",
        "Since a maintenance task last succeeded",
        ["task"],
        [(name, run.since_success or 0.0) for name, run in known],
    )
    yield _gauges(
        "maintenance_last_seconds",
        "How long its last success took",
        ["task"],
        [(name, run.took or 0.0) for name, run in known],
    )
    yield _gauges(
        "maintenance_last_rows",
        "Rows of its last success",
        ["task"],
        [(name, float(run.rows or 0)) for name, run in known],
    )
    yield _gauges(
        "maintenance_failing",
        "Whether its last run failed",
        ["task"],
        [(name, float(run.failed)) for name, run in names],
    )
    yield _gauges(
        "maintenance_runs_24h",
        "Its runs in 24 hours",
        ["task", "outcome"],
        [([run.task, "success"], run.succeeded_24h) for run in now.runs]
        + [([run.task, "failure"], run.failed_24h) for run in now.runs],
    )
    for run in now.runs:
        if run.task == CHECK_INVARIANTS and run.rows is not None:
            yield _gauge("invariant_breaches", "Rows that the doctor's last run found broken", run.rows)


def _intervals(settings: WorkerSettings) -> Iterator[Metric]:
    intervals = {
        EXPIRE_SESSIONS: settings.expire_interval_seconds,
        DELETE_SESSIONS: settings.delete_interval_seconds,
        PURGE_RECORDS: settings.purge_interval_seconds,
        CHECK_INVARIANTS: settings.doctor_interval_seconds,
    }
    yield _gauges(
        "maintenance_interval_seconds",
        "How often beat sends it, by this process's settings",
        ["task"],
        [([task], seconds) for task, seconds in intervals.items()],
    )


def _broker(now: Broker) -> Iterator[Metric]:
    yield _gauges(
        "queue_messages",
        "Celery messages that wait in Redis",
        ["queue"],
        [([queue], count) for queue, count in now.messages.items()],
    )
    yield _gauges(
        "heartbeat_age_seconds",
        "Since a worker or beat gave a sign of life; forgotten after ten minutes, or a goodbye",
        ["role", "queue", "name"],
        [([one.role, one.queue, one.name], one.seconds) for one in now.members],
    )
    heard = [one for one in now.members if one.seconds < HEARD_SECONDS]
    yield _gauges(
        "workers",
        f"Workers of a queue heard within {HEARD_SECONDS} s",
        ["queue"],
        [
            ([queue], sum(one.role == WORKER and queue in one.queue.split(",") for one in heard))
            for queue in now.messages
        ],
    )
    yield _gauge("beats", f"Beats heard within {HEARD_SECONDS} s", sum(one.role == BEAT for one in heard))
    if now.memory is not None and now.memory_limit is not None:
        yield _gauge("redis_memory_bytes", "Memory that Redis uses", now.memory)
        yield _gauge("redis_memory_limit_bytes", "Its maxmemory; 0 is none", now.memory_limit)


def _figures(now: Figures, age: float) -> Iterator[Metric]:
    yield _gauge("active", "Sessions that are active now", now.active_sessions)
    yield _gauge("cleanup_runs_24h", "Successful runs of expiry and deletion in 24 hours", now.cleanups_24h)
    if (rate := now.completion_rate) is not None:
        yield _gauge("completion_ratio", "Lines completed of those begun in the last 30 days", rate)
    if (rate := now.recovery_success_rate) is not None:
        yield _gauge("recovery_success_ratio", "Recoveries that gave a session, last 30 days", rate)
    yield _gauge("figures_age_seconds", "Since these figures were counted", age)


def _finished(seen: Finished) -> Iterator[Metric]:
    """Cumulative since this process began to look, over all tasks, whoever accepted and executed them."""
    wait = HistogramMetricFamily(
        "checkout_sessions_task_seconds", "From a task's acceptance until a worker took it up", labels=["kind"]
    )
    done = CounterMetricFamily("checkout_sessions_tasks_finished", "Tasks finished", labels=["kind", "outcome"])
    again = CounterMetricFamily(
        "checkout_sessions_tasks_redelivered", "Doorbells rung again for tasks now finished", labels=["kind"]
    )
    batch = HistogramMetricFamily("checkout_sessions_batch_tasks", "Tasks that one transaction of a worker finished")
    rung: dict[str, float] = {}
    for (measure, kind, label), total in sorted(seen.sums.items()):
        if measure == "wait":
            wait.add_metric([kind], _buckets(seen, (measure, kind, label), vitals.WAITS), total)
        elif measure == "batch":
            batch.add_metric([], _buckets(seen, (measure, kind, label), vitals.SIZES), total)
        else:
            done.add_metric([kind, label], float(seen.counts[measure, kind, label, 0]))
            rung[kind] = rung.get(kind, 0.0) + total
    for kind, times in rung.items():
        again.add_metric([kind], times)
    yield from (wait, done, again, batch)


def _buckets(seen: Finished, key: tuple[str, str, str], bounds: tuple[float, ...]) -> list[tuple[str, float]]:
    """Cumulative, as Prometheus has them. `width_bucket` gives 0 below the first bound."""
    total = 0
    buckets: list[tuple[str, float]] = []
    for n, bound in enumerate([*map(float, bounds), float("inf")]):
        total += seen.counts[(*key, n)]
        buckets.append(("+Inf" if bound == float("inf") else str(bound), float(total)))
    return buckets


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"checkout_sessions_{name}", text, value=float(value))


def _gauges(name: str, text: str, labels: list[str], samples: list[Sample] | list[tuple[list[str], int]]) -> Metric:
    family = GaugeMetricFamily(f"checkout_sessions_{name}", text, labels=labels)
    for values, value in samples:
        family.add_metric(values, float(value))
    return family
