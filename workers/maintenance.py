"""The maintenance tasks: one run at a time, in short transactions, within a budget of time, on record."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

import structlog
from sqlalchemy import Connection, Engine, text
from uuid_utils.compat import uuid7

from db import sweeps
from db.access import Role
from db.engine import sync_engine
from db.invariants import examine
from db.lifecycle import Kind, Limits
from workers.doctor import bounds_of
from workers.messages import (
    CHECK_INVARIANTS,
    DELETE_SESSIONS,
    EXPIRE_SESSIONS,
    PURGE_RECORDS,
    REDELIVER_TASKS,
)
from workers.settings import WorkerSettings

log = structlog.get_logger("maintenance")

SWEEP_LIMIT: Final = 5_000  # rows a transaction: a tenth of a second of a core, under locks that nobody waits for
DELETE_LIMIT: Final = 50_000  # the same time: no index is written to
BUSY_LIMIT: Final = 100  # the same while shoppers are at work
BUSY_PAUSE: Final = 4  # then a sweep rests that many times as long as it took
RING_LIMIT: Final = 5_120  # doorbells a sweep: twenty messages, however long the backlog
UNHEARD_LIMIT: Final = 1_000  # messages that wait in the queue already: more of them would not be heard sooner
BUDGET_SECONDS: Final = 12.0  # well under the tasks' hard time limit; what is left waits for the next tick

Batch = Callable[[Connection, int], int]  # takes the most rows to touch, returns how many it touched

# One number for each kind of run, in a range that no other software is likely to lock.
LOCKS: Final = {
    name: 0x636B7331 + n
    for n, name in enumerate([EXPIRE_SESSIONS, DELETE_SESSIONS, REDELIVER_TASKS, PURGE_RECORDS, CHECK_INVARIANTS])
}


class InvariantsBrokenError(Exception):
    """The doctor found rows that must not be: a fault of ours."""


@dataclass(slots=True)
class Maintenance:
    """The maintenance of one database.

    Args:
        engine: to Postgres.
        limits: the lengths of a session's life.
        settings: retention of records, and the redelivery's interval.
        ring: rings for tasks that are committed.
        send: sends a maintenance task.
        unheard: how many messages wait in the queue of the session tasks.
    """

    engine: Engine
    limits: Limits
    settings: WorkerSettings
    ring: Callable[[Iterable[tuple[UUID, Kind]]], bool]
    send: Callable[[str, list[Any]], bool]
    unheard: Callable[[], int] = lambda: 0

    def expire_sessions(self, run_id: str | None = None, trigger: str = "beat") -> dict[str, Any]:
        """Mark overdue sessions. Reads compute expiry themselves, so this only writes down what already counts."""
        return self._run(EXPIRE_SESSIONS, run_id, trigger, sweeps.expire, SWEEP_LIMIT)

    def delete_sessions(self, run_id: str | None = None, trigger: str = "beat") -> dict[str, Any]:
        """Delete old sessions."""

        def delete(connection: Connection, limit: int) -> int:
            return sweeps.delete(connection, limit, self.limits.retention)

        return self._run(DELETE_SESSIONS, run_id, trigger, delete, DELETE_LIMIT)

    def purge_records(self) -> dict[str, Any]:
        """Delete old records of tasks and of maintenance."""
        retention = timedelta(seconds=self.settings.task_retention_seconds)

        def purge(connection: Connection, limit: int) -> int:
            tasks = sweeps.purge_tasks(connection, limit, retention)
            return tasks + sweeps.purge_runs(connection, limit, retention)

        return self._run(PURGE_RECORDS, None, "beat", purge, SWEEP_LIMIT)

    def check_invariants(self) -> dict[str, Any]:
        """Check what must hold; its run keeps how many rows break it, for the metrics.

        Raises:
            InvariantsBrokenError: something does not hold.
        """
        broken: dict[str, list[str]] = {}

        def check(connection: Connection, _: int) -> int:
            connection.execute(text(f"SET LOCAL ROLE {Role.AUDITOR}"))  # carts and payments are not maintenance's
            for finding in examine(connection, bounds_of(self.settings)):
                if finding.unknown:
                    log.warning("invariant not checked", invariant=finding.name, error=finding.unknown)
                if finding.broken:
                    log.error("invariant broken", invariant=finding.name, promise=finding.promise, rows=finding.broken)
                    broken[finding.name] = finding.broken
            return sum(map(len, broken.values()))

        result = self._run(CHECK_INVARIANTS, None, "beat", check, 0)
        if broken:
            raise InvariantsBrokenError(", ".join(broken))
        return result

    def redeliver_tasks(self) -> dict[str, Any]:
        """Ring again. No record of it: it runs every other second."""
        interval = timedelta(seconds=self.settings.redeliver_interval_seconds)
        limit = RING_LIMIT if self.unheard() < UNHEARD_LIMIT else 0
        with self.engine.begin() as connection:
            due = sweeps.ring_again(connection, limit, interval) if limit else []
            undone = sweeps.undone_runs(connection)
        if due:
            log.warning("doorbells rung again", tasks=len(due))
            self.ring(due)
        for name, run_id in undone:
            self.send(name, [str(run_id)])
        return {"rung": len(due), "cleanups": len(undone)}

    def _run(self, name: str, run_id: str | None, trigger: str, batch: Batch, most: int) -> dict[str, Any]:
        """Run `batch` until it comes back short or the budget is used up, one run of its name at a time.

        Args:
            name: of the task.
            run_id: of a run that was asked for.
            trigger: who asked.
            batch: one transaction.
            most: rows of a batch; with 0 there is one batch only.
        """
        with self.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as guard:
            # Beat's tick gives way to a run under way; someone who asked for one waits for it.
            wait = run_id is not None or trigger != "beat"
            lock = "pg_advisory_lock" if wait else "pg_try_advisory_lock"
            if guard.execute(text(f"SELECT {lock}(:key)"), {"key": LOCKS[name]}).scalar() is False:
                return {"skipped": "another run is under way"}
            try:
                return self._recorded(guard, name, run_id or str(uuid7()), trigger, batch, most)
            finally:
                guard.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": LOCKS[name]})

    def _recorded(
        self, guard: Connection, name: str, run_id: str, trigger: str, batch: Batch, most: int
    ) -> dict[str, Any]:
        begun = guard.execute(_BEGIN_RUN, {"id": run_id, "task": name, "trigger": trigger}).one_or_none()
        if begun is None:
            return {"skipped": "this run is finished"}
        (trigger,) = begun  # of a run that was asked for over HTTP, as its row says
        began = time.monotonic()
        rows, error = 0, None
        try:
            while (batch_began := time.monotonic()) - began < BUDGET_SECONDS:
                busy = sweeps.shoppers_at_work(guard)
                limit = min(BUSY_LIMIT, most) if busy else most
                with self.engine.begin() as connection:
                    done = batch(connection, limit)
                rows += done
                if not most or done < limit:
                    break
                if busy:
                    time.sleep(BUSY_PAUSE * (time.monotonic() - batch_began))
        except Exception as caught:
            error = type(caught).__name__
            log.exception("maintenance failed", task=name, run_id=run_id, rows=rows)
            raise
        finally:
            guard.execute(_END_RUN, {"id": run_id, "rows": rows, "error": error})
        took = time.monotonic() - began
        ms = round(took * 1000, 1)
        log.info("maintenance done", task=name, run_id=run_id, trigger=trigger, rows=rows, ms=ms)
        return {"rows": rows}


def maintenance_engine(settings: WorkerSettings) -> Engine:
    """Two connections, one for the run's lock and one for its batches; a run may wait for the one before it."""
    return sync_engine(
        settings, "maintenance", size=2, role=Role.MAINTENANCE, statement_timeout="15000", lock_timeout="15000"
    )


_BEGIN_RUN = text("""
INSERT INTO maintenance_runs AS r (id, task, trigger, began_at) VALUES (:id, :task, :trigger, now())
ON CONFLICT (id) DO UPDATE SET began_at = now() WHERE r.finished_at IS NULL
RETURNING trigger
""")
_END_RUN = text("UPDATE maintenance_runs SET finished_at = now(), rows = :rows, error = :error WHERE id = :id")
