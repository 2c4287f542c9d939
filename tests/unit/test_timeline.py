"""What ended a session is told from the clocks and the order of its user's tasks."""

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from uuid_utils.compat import uuid7

from db.history import Asked, Moment, Sweep, timeline
from db.lifecycle import Kind, Origin, Refusal, Status, TaskState
from db.queries import SessionView
from tests.factories import NOW

LATER = NOW + timedelta(minutes=5)
DAY = timedelta(days=1)


def view(status: Status = Status.ACTIVE, created: datetime = NOW, **values: Any) -> SessionView:
    """A session of ann."""
    ordinary = {
        "id": uuid7(),
        "user_id": "ann",
        "status": status,
        "package": "silver",
        "step": None,
        "data": {},
        "origin": Origin.CREATED,
        "previous_session_id": None,
        "payment_reference": None,
        "created_at": created,
        "updated_at": created,
        "expires_at": created + DAY,
        "completed_at": None,
        "successor_id": None,
        "now": LATER,
    }
    return SessionView(**ordinary | values)


def asked(seq: int, kind: Kind, session_id: UUID, result: UUID | None, finished: datetime | None, **more: Any) -> Asked:
    """A task of ann."""
    state = TaskState.PENDING if finished is None else TaskState.FAILURE if more.get("refusal") else TaskState.SUCCESS
    known = {"refusal": None, "reason": None, "request_id": None, "rings": 1, "attempts": 0, "worker": None}
    at = {"accepted_at": finished or NOW, "finished_at": finished}
    ids = {"session_id": session_id, "result_session_id": result, "celery_task_id": None}
    return Asked(id=uuid7(), seq=seq, kind=kind, user_id="ann", state=state, **ids | at | known | more)


def the(event: str, moments: list[Moment], session: SessionView) -> Moment:
    """The one moment of a session."""
    (found,) = [moment for moment in moments if (moment.event, moment.session_id) == (event, session.id)]
    return found


def test_a_newer_create_of_another_line_ends_a_session() -> None:
    old = view(Status.INVALIDATED, updated_at=LATER)
    maker = asked(1, Kind.CREATE, old.id, old.id, NOW)
    newer = asked(2, Kind.CREATE, other := uuid7(), other, LATER)
    moment = the("invalidated", timeline([old], [maker], [newer], []), old)
    assert (moment.task_id, moment.at, moment.detail) == (newer.id, LATER, "a newer create took its place")


def test_of_one_transaction_only_what_came_after_its_own_create_ended_it() -> None:
    """Three creates in one batch: all share a clock, their order of acceptance tells."""
    ids = [uuid7() for _ in range(3)]
    tasks = [asked(n, Kind.CREATE, one, one, NOW) for n, one in enumerate(ids)]
    second = view(Status.INVALIDATED, id=ids[1])
    moments = timeline([second], [tasks[1]], tasks, [])
    assert the("invalidated", moments, second).task_id == tasks[2].id
    assert the("began", moments, second).task_id == tasks[1].id


def test_a_payment_for_an_older_member_of_the_line_ends_a_live_one() -> None:
    paid = view(Status.COMPLETED, updated_at=LATER, completed_at=LATER, payment_reference="pi")
    live = view(Status.INVALIDATED, updated_at=LATER, origin=Origin.RENEWED, previous_session_id=paid.id)
    payment = asked(3, Kind.COMPLETE, paid.id, paid.id, LATER)
    elsewhere = asked(2, Kind.COMPLETE, other := uuid7(), other, LATER)
    moments = timeline([paid, live], [payment], [elsewhere, payment], [])
    assert the("invalidated", moments, live).task_id == payment.id
    assert the("completed", moments, paid).task_id == payment.id


def test_a_refusal_ends_nothing() -> None:
    old = view(Status.INVALIDATED, updated_at=LATER)
    refused = asked(2, Kind.RENEW, old.id, uuid7(), LATER, refusal=Refusal.DATA_TOO_LARGE)
    moment = the("invalidated", timeline([old], [refused], [refused], []), old)
    assert (moment.task_id, moment.detail) == (None, "why is not on record any more")


@pytest.mark.parametrize("by", ["task", "sweep", "nobody"])
def test_who_marked_an_expiry(by: str) -> None:
    late = NOW + DAY + timedelta(minutes=1)
    old = view(Status.EXPIRED, updated_at=late)
    recovery = asked(2, Kind.RECOVER, old.id, uuid7(), late)
    tasks = [recovery] if by == "task" else []
    swept = [Sweep(late, "command", late)] if by == "sweep" else []
    moments = timeline([old], tasks, tasks, swept)
    assert the("expired", moments, old).at == old.expires_at
    told = the("marked", moments, old)
    words = {"task": "by the recover that", "sweep": "by a sweep (asked for by command)", "nobody": "by what is not"}
    assert told.detail.startswith(words[by])
    assert told.task_id == (recovery.id if by == "task" else None)


def test_an_expiry_that_is_not_marked_yet_is_told_as_one() -> None:
    overdue = view(Status.EXPIRED)  # as reads compute it; its row says active
    assert [moment.event for moment in timeline([overdue], [], [], [])] == ["began", "expired"]


def test_what_is_pending_or_given_up_is_told() -> None:
    session = view()
    waits = asked(1, Kind.RENEW, session.id, None, None)
    lost = asked(2, Kind.RENEW, session.id, session.id, LATER, refusal=Refusal.GAVE_UP, rings=4, reason="5 failed")
    moments = timeline([session], [waits, lost], [], [])
    assert [(moment.event, moment.task_id) for moment in moments if moment.task_id == waits.id] == [
        ("accepted", waits.id)
    ]
    assert the("given up", moments, session).detail == "renew: 5 failed after 0 ms, rung 4 times"
