"""Any requests of any users in any order at any time, decided by the pure rules: what must hold after each step."""

from collections import defaultdict
from dataclasses import replace
from datetime import datetime, timedelta
from uuid import UUID, uuid4

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, multiple, rule

from db.decisions import Shopper, decide
from db.lifecycle import Kind, Outcome, Refusal, Session, Status, Task, TaskState, is_expired
from tests.factories import LIMITS, NOW, make_task
from tests.soundness import violations

USERS = ("ann", "bob", "cem")
JUMPS = [
    timedelta(microseconds=1),
    timedelta(hours=1),
    LIMITS.ttl - timedelta(microseconds=1),
    LIMITS.ttl,
    LIMITS.retention,
]
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

    ids = Bundle("ids")

    def __init__(self) -> None:
        super().__init__()
        self.now: datetime = NOW
        self.sessions: dict[UUID, Session] = {}
        self.gone: dict[UUID, Session] = {}
        self.pending: dict[str, list[Task]] = defaultdict(list)
        self.completed: dict[UUID, Session] = {}

    @initialize(target=ids)
    def unknown(self) -> UUID:
        return multiple(uuid4())

    @rule(target=ids, user=st.sampled_from(USERS), package=st.sampled_from("sgp"))
    def create(self, user: str, package: str) -> UUID:
        task = make_task(Kind.CREATE, accepted_at=self.now, user_id=user, package=package)
        self.pending[user].append(task)
        return task.session_id

    @rule(
        kind=st.sampled_from([Kind.RENEW, Kind.RECOVER, Kind.COMPLETE]),
        user=st.sampled_from(USERS),
        session_id=ids,
        reference=st.sampled_from(["pay-1", "pay-2", "pay-3"]),
    )
    def ask(self, kind: Kind, user: str, session_id: UUID, reference: str) -> None:
        values = {Kind.RENEW: {"package": "x"}, Kind.COMPLETE: {"payment_reference": reference}}.get(kind, {})
        self.pending[user].append(make_task(kind, session_id, self.now, user_id=user, **values))

    @rule(jump=st.sampled_from(JUMPS))
    def time_passes(self, jump: timedelta) -> None:
        self.now += jump

    @rule(target=ids, user=st.sampled_from(USERS), number=st.integers(1, 5))
    def execute(self, user: str, number: int) -> UUID:
        made = []
        for task in self.pending[user][:number]:
            made += self._decide(task)
        del self.pending[user][:number]
        return multiple(*made)

    @rule()
    def expiry_sweep(self) -> None:
        for session in self.sessions.values():
            overdue = session.status is Status.ACTIVE and is_expired(session.expires_at, self.now)
            if overdue and not self.pending[session.user_id]:
                self.sessions[session.id] = replace(session, status=Status.EXPIRED)

    @rule()
    def deletion_sweep(self) -> None:
        for session in list(self.sessions.values()):
            old = session.created_at <= self.now - LIMITS.retention
            if old and session.status is not Status.COMPLETED and not self.pending[session.user_id]:
                del self.sessions[session.id]
                gone = Status.EXPIRED if session.status is Status.ACTIVE else session.status
                self.gone[session.id] = replace(session, status=gone)

    def _decide(self, task: Task) -> list[UUID]:
        before = dict(self.sessions)
        payments = {s.payment_reference: s.id for s in before.values() if s.payment_reference}
        mine = [session for session in before.values() if session.user_id == task.user_id]
        new_id = uuid4()
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


Rules.TestCase.settings = settings(
    max_examples=150, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestRules = Rules.TestCase
