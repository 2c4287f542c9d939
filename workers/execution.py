"""Executes accepted tasks: lock the users, load, decide, store, tell. One transaction for all tasks of a message."""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import structlog
from psycopg import Connection, Cursor
from sqlalchemy import Engine
from uuid_utils.compat import uuid7

from db import logs, statements
from db.decisions import Change, Shopper, decide
from db.engine import is_outage, transaction
from db.lifecycle import Limits, Outcome, Refusal, Session
from workers.messages import BATCH_LIMIT
from workers.rows import Taken, session_of, store_parameters, taken_of

log = structlog.get_logger("execution")

Tell = Callable[[list[UUID]], None]
BATCH = 64  # tasks in one transaction: more are hardly cheaper, and all of them are told later
TAKE_LIMIT = 4 * BATCH_LIMIT  # the same, with whatever else their users have pending
SUSPECT_RINGS = 3  # delivered for the third time: perhaps its execution kills the worker


class TasksFailedError(Exception):
    """Some tasks of a message could not be executed; all others are done. They are rung again, a counted few times."""


@dataclass(slots=True)
class Summary:
    """What a message came to; Flower shows it as the Celery task's result."""

    finished: int = 0
    refused: int = 0
    failed: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Executor:
    """Executes messages on one engine.

    Args:
        engine: to Postgres, of this process alone.
        limits: the lengths of a session's life.
        tell: publishes the ids of finished tasks, best effort.
        max_attempts: executions of one task that may fail before it is given up.
        worker: this process's name, kept with each task it finishes.
    """

    engine: Engine
    limits: Limits
    tell: Tell
    max_attempts: int
    worker: str

    def execute(self, ids: Sequence[UUID], celery_task_id: str, redelivered: bool = False) -> Summary:
        """Execute the tasks named and whatever else their users have pending, each user's in order of acceptance.

        A task that is not pending any more is left alone. What fails in the batch is tried alone, so that it spoils
        nobody else's.

        Raises:
            TasksFailedError: some failed alone, too.
            sqlalchemy.exc.DBAPIError, psycopg.OperationalError: Postgres is away; nothing was done.
        """
        summary = Summary()
        for start in range(0, len(ids), BATCH):
            self._execute_batch(list(ids[start : start + BATCH]), celery_task_id, redelivered, summary)
        if summary.failed:
            raise TasksFailedError(", ".join(summary.failed))
        return summary

    def _execute_batch(self, ids: list[UUID], celery_task_id: str, redelivered: bool, summary: Summary) -> None:
        try:
            suspicious = self._run(ids, celery_task_id, summary, redelivered)
        except Exception as error:
            if is_outage(error):
                log.warning("database operation failed", operation="execute", tasks=len(ids), error=repr(error))
                raise
            log.warning("batch failed, its users are tried alone", tasks=len(ids), error=repr(error))
            suspicious = True
        if suspicious:
            with transaction(self.engine) as connection:
                each = connection.execute(statements.ONE_OF_EACH_USER, {"id": ids}).fetchall()
            for (task_id,) in each:
                self._execute_alone(task_id, celery_task_id, summary)

    def _run(self, ids: list[UUID], celery_task_id: str, summary: Summary, redelivered: bool) -> bool:
        """The normal way. Returns whether some of the users are suspect, and left for execution alone."""
        while ids:
            with transaction(self.engine) as connection:
                taken, sessions = take(connection, ids)
                todo = taken
                suspects = {t.task.user_id for t in taken if t.attempts > 0}
                fresh = [t for t in taken if t.task.user_id not in suspects]
                counted = [t.task.id for t in fresh if redelivered or t.rings >= SUSPECT_RINGS]
                if counted or suspects:
                    connection.execute(statements.COUNT_ATTEMPT, {"id": counted})
                    connection.commit()
                    again, sessions = take(connection, ids)
                    todo = [t for t in again if t.task.user_id not in suspects]
                self._finish(connection, todo, sessions, celery_task_id, summary)
            if suspects:
                return True
            done = {t.task.id for t in taken} if len(taken) == TAKE_LIMIT else set(ids)
            ids = [task_id for task_id in ids if task_id not in done]
        return False

    def _execute_alone(self, task_id: UUID, celery_task_id: str, summary: Summary) -> None:
        """Execute a user's tasks one by one, each counted before it begins; the first that fails stops that user."""
        doing = task_id
        try:
            while True:
                with transaction(self.engine) as connection:
                    first = first_of(connection, task_id)
                    if first is None:
                        return
                    doing = first.task.id
                    if first.attempts >= self.max_attempts:
                        self._give_up(connection, first, celery_task_id, summary)
                        continue
                    connection.execute(statements.COUNT_ATTEMPT, {"id": [doing]})
                    connection.commit()
                with transaction(self.engine) as connection:
                    self._finish(connection, *take(connection, [doing], limit=1), celery_task_id, summary)
        except Exception as error:
            if is_outage(error):
                raise
            log.exception("task failed", task_id=doing)
            summary.failed.append(f"{doing}: {type(error).__name__}")

    def _give_up(self, connection: Connection[Any], taken: Taken, celery_task_id: str, summary: Summary) -> None:
        outcome = Outcome(taken.task.session_id, Refusal.GAVE_UP, f"{taken.attempts} attempts failed")
        log.error("task given up", task_id=taken.task.id, kind=taken.task.kind, attempts=taken.attempts)
        self._store(connection, [], [(taken, outcome)], celery_task_id)
        self._told([(taken, outcome)], 0.0, summary)

    def _finish(
        self,
        connection: Connection[Any],
        taken: list[Taken],
        sessions: Cursor[Any],
        celery_task_id: str,
        summary: Summary,
    ) -> None:
        if not taken:
            return
        began = time.perf_counter()
        shoppers = load(connection, taken, sessions, self.limits)
        outcomes = [(t, decide(shoppers[t.task.user_id], t.task, uuid7)) for t in taken]
        self._store(connection, shoppers.values(), outcomes, celery_task_id)
        self._told(outcomes, time.perf_counter() - began, summary)

    def _store(
        self,
        connection: Connection[Any],
        shoppers: Iterable[Shopper],
        outcomes: list[tuple[Taken, Outcome]],
        celery_task_id: str,
    ) -> None:
        """Write sessions and outcomes, and commit, in one round trip."""
        changes: list[Change] = []
        sessions: list[Session] = []
        for shopper in shoppers:
            changes += shopper.changed()
            sessions += shopper.added()
        parameters = store_parameters(changes, sessions, outcomes, self.worker, celery_task_id)
        with logs.operation("store") as done:
            connection.execute(statements.STORE, parameters)
            connection.commit()
            done.rows = len(changes) + len(sessions) + len(outcomes)

    def _told(self, outcomes: list[tuple[Taken, Outcome]], seconds: float, summary: Summary) -> None:
        summary.finished += len(outcomes)
        summary.refused += sum(outcome.refusal is not None for _, outcome in outcomes)
        self.tell([taken.task.id for taken, _ in outcomes])
        shared = {"batch": len(outcomes), "ms": round(seconds * 1000, 1)}
        logs.each("task finished", (_logged(taken, outcome) | shared for taken, outcome in outcomes))


def _logged(taken: Taken, outcome: Outcome) -> dict[str, Any]:
    return {
        "request_id": taken.request_id,
        "task_id": taken.task.id,
        "kind": taken.task.kind,
        "user_id": taken.task.user_id,
        "session_id": outcome.session_id,
        "addressed": taken.task.session_id,
        "addressed_status": outcome.addressed_status,
        "state": outcome.state,
        "refusal": outcome.refusal,
        "reason": outcome.reason,
    }


def first_of(connection: Connection[Any], task_id: UUID) -> Taken | None:
    """Lock a task's user, and tell what is first of theirs: nothing else is read, so that nothing else can fail."""
    row = connection.execute(statements.TAKE, {"id": [task_id], "limit": 1}, binary=True).fetchone()
    return taken_of(row) if row else None


def take(connection: Connection[Any], ids: list[UUID], limit: int = TAKE_LIMIT) -> tuple[list[Taken], Cursor[Any]]:
    """Lock the users of pending tasks, and take what these have pending, up to `limit`, in order of acceptance.

    Returns:
        The tasks, and where `load` finds the sessions, which were asked for in the same round trip.
    """
    tasks = connection.execute(statements.TAKE, {"id": ids, "limit": limit}, binary=True)
    sessions = connection.execute(statements.LOAD, {"id": ids}, binary=True)
    return [taken_of(row) for row in tasks], sessions


def load(connection: Connection[Any], taken: list[Taken], sessions: Cursor[Any], limits: Limits) -> dict[str, Shopper]:
    """What the tasks touch, user by user, locked."""
    references = list({t.task.payment_reference for t in taken if t.task.payment_reference})
    payments: dict[str, UUID] = {}
    if references:
        payments.update(connection.execute(statements.PAYMENTS, {"payment_reference": references}).fetchall())
    held: dict[str, list[Session]] = {t.task.user_id: [] for t in taken}
    for session in map(session_of, sessions):
        if session.user_id in held:
            held[session.user_id].append(session)
    return {user: Shopper(user, taken[0].now, limits, some, payments) for user, some in held.items()}
