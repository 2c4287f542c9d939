"""The real database and executor, driven by any requests, doorbells, clocks and sweeps, against the pure rules."""

import itertools
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test
from psycopg import Connection
from sqlalchemy import Engine

from db import sweeps
from db.decisions import Shopper, decide
from db.lifecycle import Kind, Outcome, Session, Status, Task, is_expired
from tests.factories import LIMITS, accept, make_task, read_sessions, read_tasks
from tests.integration.conftest import make_executor
from tests.soundness import assert_sound, violations
from workers.execution import Executor

_runs = itertools.count()
JUMPS = [timedelta(hours=1), timedelta(hours=23), LIMITS.ttl, LIMITS.retention]
SHIFT = """
UPDATE checkout_sessions SET created_at = created_at - %(by)s, expires_at = expires_at - %(by)s,
    line_began_at = line_began_at - %(by)s, completed_at = completed_at - %(by)s WHERE user_id = ANY(%(users)s);
UPDATE session_tasks SET accepted_at = accepted_at - %(by)s, finished_at = finished_at - %(by)s
WHERE user_id = ANY(%(users)s)
"""

Request = tuple[Kind, int, int, bool, dict[str, int | None]]
# A kind, the tab that it comes from, a payment reference, and seldom that the tab is another user's; data.
REQUESTS = st.tuples(
    st.sampled_from(Kind),
    st.integers(0, 5),
    st.integers(0, 20),
    st.integers(0, 9).map(lambda n: n == 9),
    st.dictionaries(st.sampled_from("xyz"), st.one_of(st.none(), st.integers(0, 9)), max_size=2),
)


class Service(RuleBasedStateMachine):
    """Beside each row stands what the rules say; time passes by moving all that happened into the past."""

    def __init__(self, connection: Connection[Any], engine: Engine, executors: list[Executor]) -> None:
        super().__init__()
        self.connection = connection
        self.engine = engine
        self.executors = executors
        run = next(_runs)
        self.users = [f"machine-{run}-{name}" for name in "ab"]
        self.sessions: dict[UUID, Session] = {}
        self.gone: list[Session] = []
        self.accepted: list[Task] = []
        self.outcomes: dict[UUID, Outcome] = {}
        self.known: list[tuple[str, UUID]] = []  # what the tabs hold, the latest last

    @rule(requests=st.lists(REQUESTS, min_size=1, max_size=5), user=st.integers(0, 1), at_once=st.booleans())
    def ask(self, requests: list[Request], user: int, at_once: bool) -> None:
        """Each from the tab so many sessions ago, of the same user or another; executed one by one, or later."""
        for group in [[request] for request in requests] if at_once else [requests]:
            tasks = [self._task(self.users[user], *request) for request in group]
            assert accept(self.connection, *tasks) == [task.id for task in tasks]
            rows = read_tasks(self.connection, *tasks)
            for task, row in zip(tasks, rows, strict=True):
                self.accepted.append(replace(task, seq=row["seq"], accepted_at=row["accepted_at"]))
            if at_once:
                self.ring([len(self.accepted) - 1], 0, redelivered=False)

    def _task(self, user: str, kind: Kind, tab: int, reference: int, foreign: bool, data: dict[str, Any]) -> Task:
        tabs = [session_id for owner, session_id in self.known[::-1] if (owner == user) is not foreign]
        session_id = tabs[tab % len(tabs)] if tabs and kind is not Kind.CREATE else None
        values = {
            Kind.CREATE: {"package": "silver", "step": "packages", "data": data},
            Kind.RENEW: {"package": "gold", "data": data},
            Kind.COMPLETE: {"payment_reference": f"{user.rpartition('-')[0]}-{reference}"},
        }
        return make_task(kind, session_id, user_id=user, **values.get(kind, {}))

    @rule(
        picks=st.lists(st.integers(0, 1000), min_size=1, max_size=6),
        executor=st.integers(0, 1),
        redelivered=st.booleans(),
    )
    def ring(self, picks: list[int], executor: int, redelivered: bool) -> None:
        """Of any accepted tasks, in any order, again or for the first time."""
        if not self.accepted:
            return
        rung = [self.accepted[pick % len(self.accepted)] for pick in picks]
        summary = self.executors[executor].execute([task.id for task in rung], "machine", redelivered)
        users = {task.user_id for task in rung}
        due = [task for task in self.accepted if task.user_id in users and task.id not in self.outcomes]
        assert summary.finished == len(due)
        if due:
            self._decide(sorted(due, key=lambda task: (task.user_id, task.seq)))
        self._compare()

    @rule(by=st.sampled_from(JUMPS), expire=st.booleans(), delete=st.booleans())
    def time_passes(self, by: timedelta, expire: bool, delete: bool) -> None:
        """And sweeps come, or not."""
        for statement in SHIFT.split(";"):
            self.connection.execute(statement, {"by": by, "users": self.users})
        self.accepted = [replace(task, accepted_at=task.accepted_at - by) for task in self.accepted]
        self.sessions = {s.id: _earlier(s, by) for s in self.sessions.values()}
        self.gone = [_earlier(session, by) for session in self.gone]
        if expire:
            self._expiry_sweep()
        if delete:
            self._deletion_sweep()
        self._compare()

    def _expiry_sweep(self) -> None:
        with self.engine.begin() as connection:
            sweeps.expire(connection, 10_000)
        now = self._now()
        for session in self._nobody_waits():
            if session.status is Status.ACTIVE and is_expired(session.expires_at, now):
                self.sessions[session.id] = replace(session, status=Status.EXPIRED)

    def _deletion_sweep(self) -> None:
        with self.engine.begin() as connection:
            sweeps.delete(connection, 10_000, LIMITS.retention)
        old = self._now() - LIMITS.retention
        for session in self._nobody_waits():
            if session.status is not Status.COMPLETED and session.created_at <= old:
                gone = self.sessions.pop(session.id)
                self.gone.append(replace(gone, status=Status.EXPIRED) if gone.status is Status.ACTIVE else gone)

    def teardown(self) -> None:
        assert_sound(self.engine, self.connection, whole=False)
        for table in ("checkout_sessions", "session_tasks", "daily_counts"):
            self.connection.execute(f"DELETE FROM {table}")

    def _now(self) -> datetime:
        return self.connection.execute("SELECT now()").fetchone()[0]

    def _nobody_waits(self) -> list[Session]:
        waiting = {task.user_id for task in self.accepted if task.id not in self.outcomes}
        return [session for session in self.sessions.values() if session.user_id not in waiting]

    def _decide(self, due: list[Task]) -> None:
        """What the rules say of these tasks, at the time and with the new ids of the executor."""
        rows = {row["id"]: row for row in read_tasks(self.connection, *due)}
        (now,) = {row["finished_at"] for row in rows.values()}
        payments = {s.payment_reference: s.id for s in self.sessions.values() if s.payment_reference}
        for user, tasks in itertools.groupby(due, key=lambda task: task.user_id):
            mine = [session for session in self.sessions.values() if session.user_id == user]
            shopper = Shopper(user, now, LIMITS, mine, payments)
            for task in tasks:
                result = rows[task.id]["result_session_id"]
                self.outcomes[task.id] = decide(shopper, task, lambda result=result: result)
            self.sessions |= shopper.sessions
            self.known += [(user, session.id) for session in shopper.added()]

    def _compare(self) -> None:
        stored = {session.id: session for session in read_sessions(self.connection, *self.users)}
        assert stored == self.sessions
        assert violations([*self.sessions.values(), *self.gone]) == []
        for row in read_tasks(self.connection, *self.accepted):
            told = self.outcomes.get(row["id"])
            outcome = (told.state, told.session_id, told.refusal, told.reason, told.addressed_status) if told else None
            columns = ("state", "result_session_id", "refusal", "reason", "addressed_status")
            assert tuple(row[name] for name in columns) == (outcome or ("PENDING", None, None, None, None))


def _earlier(session: Session, by: timedelta) -> Session:
    return replace(
        session,
        created_at=session.created_at - by,
        expires_at=session.expires_at - by,
        line_began_at=session.line_began_at - by,
        completed_at=session.completed_at and session.completed_at - by,
    )


@pytest.mark.timeout(600)  # for what has failed to become small
def test_the_database_holds_what_the_rules_say(
    connection: Connection[Any], engine: Engine, make_engine: Callable[..., Engine]
) -> None:
    executors = [make_executor(make_engine()) for _ in range(2)]
    run_state_machine_as_test(
        lambda: Service(connection, engine, executors),
        settings=settings(
            max_examples=40,
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        ),
    )
