"""complete in all situations, whether accepted in time or late, with a reference fresh or used.

"The time at which it was *accepted* decides between it and expiry, however late the worker is: accepted before the
session's expires_at, it completes it even if it is marked expired or invalidated by then, unless its line already has a
completion, and a live successor ends invalidated. Again with the same reference -> the same answer; with another ->
already_completed. Accepted after expiry -> session_expired."
"""

from datetime import datetime, timedelta
from uuid import uuid4

import pytest

from db.lifecycle import Kind, Outcome, Refusal, Status, Task
from tests.factories import NOW, make_next, make_session, make_task
from tests.unit.situations import SITUATIONS, UNKNOWN, Situation, decided, situation

_DONE = {
    "completed": "it",
    "old > completed": "head",
    "completed > invalidated": "it",
    "newest of completed": "done",
}
DONE = {name: _DONE[base] for name in SITUATIONS if (base := name.split(" + ")[0]) in _DONE}
OPEN = tuple(name for name in SITUATIONS if name not in DONE and name not in UNKNOWN)

# A session on another line is nobody's successor: it stays as it is, and so does a successor whose time is over.
IN_TIME = dict.fromkeys(OPEN, "it; it completed") | {"old > active": "it; head invalidated; it completed"}
# Touching a row whose time is over marks it.
LATE = dict.fromkeys(OPEN, "session_expired it") | {"overdue": "session_expired it; it expired"}


def _complete(met: Situation, accepted_at: datetime | None = None, reference: str = "pay") -> Task:
    if accepted_at is None:
        accepted_at = min(NOW, met.it.expires_at - timedelta(microseconds=1))
    return make_task(Kind.COMPLETE, met.addressed, accepted_at, payment_reference=reference)


@pytest.mark.parametrize("name", OPEN)
def test_what_was_accepted_a_moment_before_expiry_completes_however_late_it_is_executed(name: str) -> None:
    met = situation(name)
    payments = {"of another": uuid4()}
    assert decided(met, _complete(met), payments).told() == IN_TIME[name]
    assert payments["pay"] == met.addressed


@pytest.mark.parametrize("name", sorted(set(OPEN) - {"active"}))
def test_what_was_accepted_at_the_instant_of_expiry_is_refused(name: str) -> None:
    met = situation(name)
    payments = {}
    assert decided(met, _complete(met, met.it.expires_at), payments).told() == LATE[name]
    assert payments == {}


@pytest.mark.parametrize("name", OPEN)
def test_a_reference_that_another_session_holds_is_refused(name: str) -> None:
    met = situation(name)
    holder = uuid4()
    payments = {"pay": holder}
    assert decided(met, _complete(met), payments).told() == "payment_reference_used it"
    assert payments == {"pay": holder}


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("name", sorted(DONE))
def test_again_with_the_same_reference_gives_the_same_answer(name: str, late: bool) -> None:
    met = situation(name)
    done = met.sessions[DONE[name]]
    task = _complete(met, met.it.expires_at if late else None, done.payment_reference)
    assert decided(met, task, {done.payment_reference: done.id}).told() == DONE[name]


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("used", [False, True])
@pytest.mark.parametrize("name", sorted(DONE))
def test_again_with_another_reference_is_refused_as_completed(name: str, used: bool, late: bool) -> None:
    met = situation(name)
    task = _complete(met, met.it.expires_at if late else None)
    assert decided(met, task, {"pay": uuid4()} if used else {}).told() == f"already_completed {DONE[name]}"


@pytest.mark.parametrize("used", [False, True])
@pytest.mark.parametrize("name", UNKNOWN)
def test_a_session_that_is_not_there_cannot_be_completed(name: str, used: bool) -> None:
    met = situation(name)
    task = _complete(met, NOW)
    assert decided(met, task, {"pay": uuid4()} if used else {}).told() == "session_not_found it"


def test_the_tables_know_all_situations() -> None:
    assert {*OPEN, *DONE, *UNKNOWN} == set(SITUATIONS)
    assert all(name.startswith(tuple(_DONE)) for name in DONE)


def test_one_reference_completes_one_of_two_sessions_decided_together() -> None:
    payments = {}
    first, second = (situation("active") for _ in range(2))
    assert decided(first, _complete(first), payments).outcome.refusal is None
    assert decided(second, _complete(second), payments).outcome.refusal is Refusal.PAYMENT_REFERENCE_USED


def test_a_successor_further_down_the_line_ends_too() -> None:
    it = make_session(status=Status.INVALIDATED)
    middle = make_next(it, Status.EXPIRED)
    head = make_next(middle)
    met = Situation({"it": it, "middle": middle, "head": head}, it.id)
    assert decided(met, _complete(met)).told() == "it; head invalidated; it completed"


def test_the_client_completes_the_recovered_session_with_the_refused_reference() -> None:
    met = situation("expired")
    payments = {}
    refused = decided(met, _complete(met, NOW), payments).outcome
    assert refused == Outcome(met.addressed, Refusal.SESSION_EXPIRED, addressed_status=Status.EXPIRED)
    recovered = decided(met, make_task(Kind.RECOVER, met.addressed)).new
    again = Situation({"before": met.it, "it": recovered}, recovered.id)
    assert decided(again, _complete(again, NOW), payments).told() == "it; it completed"
