"""The table of transitions, the one comparison for "expired", and the other small rules."""

from datetime import UTC, datetime, timedelta
from itertools import product
from uuid import UUID, uuid1, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from db.lifecycle import (
    TRANSITIONS,
    Event,
    ImpossibleTransitionError,
    Next,
    Outcome,
    Refusal,
    Status,
    TaskState,
    effective_status,
    is_expired,
    made_at,
    merged,
    next_step,
    transition,
)
from tests.factories import NOW, uuid7_of

A, C, X, I = Status.ACTIVE, Status.COMPLETED, Status.EXPIRED, Status.INVALIDATED  # noqa: E741
MOMENT = timedelta(microseconds=1)

EDGES = {
    A: {Event.COMPLETE: C, Event.EXPIRE: X, Event.INVALIDATE: I},
    X: {Event.COMPLETE: C},
    I: {Event.COMPLETE: C},
    C: {},
}


@pytest.mark.parametrize(("status", "event"), [*product(Status, Event)])
def test_each_status_answers_each_event_as_drawn(status: Status, event: Event) -> None:
    if event in EDGES[status]:
        assert transition(status, event) is EDGES[status][event]
    else:
        with pytest.raises(ImpossibleTransitionError, match=f"^{status} cannot {event}$"):
            transition(status, event)


def test_every_status_is_reached_from_active() -> None:
    reached, found = {A}, {A}
    while found:
        found = {after for (before, _), after in TRANSITIONS.items() if before in found} - reached
        reached |= found
    assert reached == set(Status)


def test_only_completed_is_final() -> None:
    assert {status for status in Status if not any(before is status for before, _ in TRANSITIONS)} == {C}


def test_nothing_becomes_active_again() -> None:
    assert A not in TRANSITIONS.values()


def test_a_session_lives_up_to_and_not_including_the_instant_at_which_it_expires() -> None:
    assert [is_expired(NOW, NOW + d) for d in (-MOMENT, timedelta(), MOMENT)] == [False, True, True]


@pytest.mark.parametrize(("status", "before", "on", "after"), [(A, A, X, X), (C, C, C, C), (X, X, X, X), (I, I, I, I)])
def test_only_an_active_row_past_its_time_counts_as_another_status(
    status: Status, before: Status, on: Status, after: Status
) -> None:
    assert [effective_status(status, NOW, NOW + d) for d in (-MOMENT, timedelta(), MOMENT)] == [before, on, after]


def test_each_status_tells_the_frontend_what_to_do_next() -> None:
    assert {status: next_step(status) for status in Status} == {
        A: Next.CONTINUE,
        C: Next.DONE,
        X: Next.RECOVER,
        I: Next.RECOVER,
    }


def test_an_outcome_is_a_failure_exactly_where_it_was_refused() -> None:
    made = uuid4()
    assert Outcome(made).state is TaskState.SUCCESS
    assert {Outcome(made, refusal).state for refusal in Refusal} == {TaskState.FAILURE}


@pytest.mark.parametrize(
    ("old", "new", "result"),
    [
        ({}, {}, {}),
        ({"a": 1}, {}, {"a": 1}),
        ({}, {"a": 1}, {"a": 1}),
        ({"a": 1, "b": 2}, {"a": 3}, {"a": 3, "b": 2}),
        ({"a": 1, "b": 2}, {"a": None}, {"b": 2}),
        ({}, {"a": None}, {}),
        ({"a": {"x": 1, "y": 2}}, {"a": {"x": 3}}, {"a": {"x": 3}}),  # the top level only
        ({"a": {"x": 1}}, {"a": {"x": None}}, {"a": {"x": None}}),
        ({"a": 1}, {"a": 0, "b": False, "c": "", "d": []}, {"a": 0, "b": False, "c": "", "d": []}),
    ],
)
def test_merging_replaces_the_top_level_and_null_removes(old: dict, new: dict, result: dict) -> None:
    kept = dict(old), dict(new)
    assert merged(old, new) == result
    assert (old, new) == kept


@given(st.datetimes(datetime(1970, 1, 1), datetime(9999, 12, 31)), st.integers(0, 2**62 - 1))  # noqa: DTZ001
def test_a_uuid7_tells_when_it_was_made_to_the_millisecond(made: datetime, random: int) -> None:
    made = made.replace(microsecond=made.microsecond // 1000 * 1000, tzinfo=UTC)
    told = made_at(uuid7_of(made, random))
    assert told is not None
    assert abs(told - made) <= timedelta(milliseconds=1)


@given(st.uuids())
def test_an_id_of_any_kind_tells_a_time_or_none(session_id: UUID) -> None:
    told = made_at(session_id)
    assert told is None or (session_id.version == 7 and told.tzinfo is UTC)


@pytest.mark.parametrize(
    "absurd",
    [
        UUID(int=0),
        UUID(int=2**128 - 1),
        uuid1(),
        uuid4(),
        UUID("ffffffff-ffff-7fff-bfff-ffffffffffff"),  # the year 10889
        UUID("ffffffff-ffff-7fff-ffff-ffffffffffff"),  # 7, but of another variant
        UUID("019a0000-0000-7000-0000-000000000000"),
    ],
)
def test_an_absurd_id_was_made_at_no_time(absurd: UUID) -> None:
    assert made_at(absurd) is None


def test_the_oldest_uuid7_was_made_at_the_epoch() -> None:
    assert made_at(UUID("00000000-0000-7000-8000-000000000000")) == datetime(1970, 1, 1, tzinfo=UTC)
