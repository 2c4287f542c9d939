"""Any requests of any users in any order at any time, decided by the pure rules: what must hold after each step."""

from collections import defaultdict
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import count
from uuid import UUID

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from db.decisions import Shopper, decide
from db.lifecycle import Kind, Outcome, Refusal, Session, Status, Task, TaskState, is_expired
from tests.factories import LIMITS, NOW, make_task, uuid7_of
from tests.soundness import violations

USERS = ("ann", "bob")
JUMPS = [
    timedelta(microseconds=1),
    timedelta(hours=1),
    LIMITS.ttl - timedelta(microseconds=1),
    LIMITS.ttl,
    LIMITS.retention,
]
# A kind, the tab that it comes from, a payment reference, and seldom that the tab is another user's.
REQUESTS = st.tuples(
    st.sampled_from(Kind), st.integers(0, 5), st.integers(0, 20), st.integers(0, 9).map(lambda n: n == 9)
)
REFUSALS = {
    Kind.CREATE: set(),
    Kind.RENEW: {Refusal.ALREADY_COMPLETED},
    Kind.RECOVER: {Refusal.ALREADY_COMPLETED, Refusal.SESSION_UNRECOVERABLE},
    Kind.COMPLETE: {
        Refusal.ALREADY_COMPLETED,
        Refusal.PAYMENT_REFERENCE_USED,
        Refusal.SESSION_EXPIRED,
        Refusal.SESSION_NOT_FOUND,
    },
}


def loaded(sessions: dict[UUID, Session], task: Task) -> list[Session]:
    """What `statements.LOAD` promises: the addressed, the newest and completed of its line, and the user's active."""
    mine = [session for session in sessions.values() if session.user_id == task.user_id]
    line = [s for s in mine if any(a.line_id == s.line_id for a in mine if a.id == task.session_id)]
    newest = max((s.line_position for s in line), default=0)
    return [
        s
        for s in mine
        if s.id == task.session_id
        or s.status is Status.ACTIVE
        or (s in line and (s.status is Status.COMPLETED or s.line_position == newest))
    ]


class Rules(RuleBasedStateMachine):
    """Tabs keep old session ids, clocks jump, workers are late, payment references are used again."""

    def __init__(self) -> None:
        super().__init__()
        self.now: datetime = NOW
        self.sessions: dict[UUID, Session] = {}
        self.gone: dict[UUID, Session] = {}
        self.pending: dict[str, list[Task]] = defaultdict(list)
        self.completed: dict[UUID, Session] = {}
        self.known: list[tuple[str, UUID]] = []  # what the tabs hold, the latest last
        self.numbers = count()

    @rule(requests=st.lists(REQUESTS, min_size=1, max_size=6), user=st.sampled_from(USERS), late=st.booleans())
    def ask(self, requests: list[tuple[Kind, int, int, bool]], user: str, late: bool) -> None:
        """Each from the tab so many sessions ago, of the same user or another; executed one by one, or later."""
        for kind, tab, reference, foreign in requests:
            tabs = [session_id for owner, session_id in self.known[::-1] if (owner == user) is not foreign]
            session_id = self._new_id() if kind is Kind.CREATE or not tabs else tabs[tab % len(tabs)]
            paid = {"payment_reference": f"pay-{reference}"}
            values = {Kind.RENEW: {"package": "x"}, Kind.COMPLETE: paid}.get(kind, {})
            self.pending[user].append(make_task(kind, session_id, self.now, user_id=user, **values))
            if not late:
                self.execute(user, len(self.pending[user]))

    @rule(user=st.sampled_from(USERS), number=st.integers(1, 5))
    def execute(self, user: str, number: int) -> None:
        for task in self.pending[user][:number]:
            self.known += [(user, session_id) for session_id in self._decide(task)]
        del self.pending[user][:number]

    @rule(jump=st.sampled_from(JUMPS), expire=st.booleans(), delete=st.booleans())
    def time_passes(self, jump: timedelta, expire: bool, delete: bool) -> None:
        """And sweeps come, or not."""
        self.now += jump
        for session in [s for s in self.sessions.values() if not self.pending[s.user_id]]:
            overdue = session.status is Status.ACTIVE and is_expired(session.expires_at, self.now)
            if expire and overdue:
                self.sessions[session.id] = replace(session, status=Status.EXPIRED)
            old = session.created_at <= self.now - LIMITS.retention
            if delete and old and session.status is not Status.COMPLETED:
                del self.sessions[session.id]
                gone = Status.EXPIRED if session.status is Status.ACTIVE else session.status
                self.gone[session.id] = replace(session, status=gone)

    def _new_id(self) -> UUID:
        return uuid7_of(self.now, next(self.numbers))

    def _decide(self, task: Task) -> list[UUID]:
        before = dict(self.sessions)
        payments = {s.payment_reference: s.id for s in before.values() if s.payment_reference}
        mine = [session for session in before.values() if session.user_id == task.user_id]
        new_id = self._new_id()
        whole = Shopper(task.user_id, self.now, LIMITS, mine, dict(payments))
        shopper = Shopper(task.user_id, self.now, LIMITS, loaded(before, task), payments)
        outcome = decide(shopper, task, lambda: new_id)
        assert outcome == decide(whole, task, lambda: new_id), "what is loaded is enough to decide"
        assert shopper.added() == whole.added()
        assert {c.session.id: c for c in shopper.changed()} == {c.session.id: c for c in whole.changed()}
        for change in shopper.changed():
            assert before[change.session.id].status is change.was
            self.sessions[change.session.id] = change.session
        for session in shopper.added():
            assert session.id not in {*before, *self.gone}
            self.sessions[session.id] = session
        self._check(task, outcome, before)
        return [session.id for session in shopper.added()]

    def _check(self, task: Task, outcome: Outcome, before: dict[UUID, Session]) -> None:
        assert (outcome.refusal is None) == (outcome.state is TaskState.SUCCESS)
        came = self.sessions.get(outcome.session_id)
        if outcome.refusal:
            assert outcome.refusal in REFUSALS[task.kind]
            if outcome.refusal is Refusal.ALREADY_COMPLETED:
                assert came.status is Status.COMPLETED
            else:
                assert outcome.session_id == task.session_id
        else:
            assert came.user_id == task.user_id
            if task.kind is Kind.COMPLETE:
                assert (came.status, came.payment_reference) == (Status.COMPLETED, task.payment_reference)
            else:
                assert came.status is Status.ACTIVE
                assert not is_expired(came.expires_at, self.now)
        self._no_money_is_dropped(task, outcome, before.get(task.session_id))

    def _no_money_is_dropped(self, task: Task, outcome: Outcome, addressed: Session | None) -> None:
        if task.kind is not Kind.COMPLETE or addressed is None or addressed.user_id != task.user_id:
            return
        line = [s for s in self.sessions.values() if s.line_id == addressed.line_id and s.status is Status.COMPLETED]
        if is_expired(addressed.expires_at, task.accepted_at):
            assert line or outcome.refusal in (Refusal.SESSION_EXPIRED, Refusal.PAYMENT_REFERENCE_USED)
        else:
            assert line or outcome.refusal is Refusal.PAYMENT_REFERENCE_USED
            ended = {session.line_id for session in line}
            live = [s for s in self.sessions.values() if s.status is Status.ACTIVE and s.line_id in ended]
            assert all(is_expired(session.expires_at, self.now) for session in live)

    @invariant()
    def sessions_are_sound(self) -> None:
        assert violations([*self.sessions.values(), *self.gone.values()]) == []

    @invariant()
    def completed_is_final(self) -> None:
        now = {s.id: s for s in self.sessions.values() if s.status is Status.COMPLETED}
        assert now.items() >= self.completed.items()
        self.completed = now


Rules.TestCase.settings = settings(max_examples=150, stateful_step_count=30)
TestRules = pytest.mark.timeout(600)(Rules.TestCase)  # for what has failed to become small
