"""create, renew and recover in all situations, each table under the sentence of DESIGN.md that rules it."""

from dataclasses import replace
from uuid import UUID

import pytest

from db.lifecycle import Kind, Origin, Session, Status
from tests.factories import LIMITS, NOW, make_task
from tests.unit.situations import SITUATIONS, UNKNOWN, decided, situation

# "create: starts a new line; the user's active session, if any, becomes invalidated."
# "an active row past expires_at is expired, marked or not; touching one marks it expired, never invalidated"
CREATE = {
    "active": "new; created; it invalidated",
    "overdue": "new; created; it expired",
    "old > active": "new; created; head invalidated",
    "old > overdue": "new; created; head expired",
} | {
    name: "new; created"
    + {"active": "; other invalidated", "overdue": "; other expired"}.get(name.split(" + ")[-1], "")
    for name in SITUATIONS
    if name not in ("active", "overdue", "old > active", "old > overdue")
}

# "renew: follows the line to its newest member. Active -> it becomes invalidated, a new one [...] Expired -> the same,
# with origin recovered. Completed -> already_completed. Unknown id -> acts as create."
RENEW = {
    "active": "new; renewed after it; it invalidated",
    "overdue": "new; recovered after it; it expired",
    "expired": "new; recovered after it",
    "expired + active": "new; recovered after it; other invalidated",
    "expired + overdue": "new; recovered after it; other expired",
    "invalidated": "new; recovered after it",
    "invalidated + active": "new; recovered after it; other invalidated",
    "invalidated + overdue": "new; recovered after it; other expired",
    "completed": "already_completed it",
    "completed + active": "already_completed it",
    "completed + overdue": "already_completed it",
    "old > active": "new; renewed after head; head invalidated",
    "old > overdue": "new; recovered after head; head expired",
    "old > expired": "new; recovered after head",
    "old > expired + active": "new; recovered after head; other invalidated",
    "old > expired + overdue": "new; recovered after head; other expired",
    "old > invalidated": "new; recovered after head",
    "old > invalidated + active": "new; recovered after head; other invalidated",
    "old > invalidated + overdue": "new; recovered after head; other expired",
    "old > completed": "already_completed head",
    "old > completed + active": "already_completed head",
    "old > completed + overdue": "already_completed head",
    "completed > invalidated": "already_completed it",
    "completed > invalidated + active": "already_completed it",
    "completed > invalidated + overdue": "already_completed it",
    "newest of completed": "already_completed done",
    "newest of completed + active": "already_completed done",
    "newest of completed + overdue": "already_completed done",
} | {name: CREATE[name] for name in UNKNOWN}

# "recover: follows the line to its newest member. Completed -> already_completed with it. Else the user's active
# session, if there is one. Else a new one from that member's package and data, origin recovered. Unknown or deleted id:
# the user's active session, else session_unrecoverable"
_DONE, _SERVES = "(the order is complete)", "(the active session serves)"
RECOVER = {
    "active": f"it {_SERVES}",
    "overdue": "new (the newest session of its line was expired); recovered after it; it expired",
    "expired": "new (the newest session of its line was expired); recovered after it",
    "expired + active": f"other {_SERVES}",
    "expired + overdue": "new (the newest session of its line was expired); recovered after it; other expired",
    "invalidated": "new (the newest session of its line was invalidated); recovered after it",
    "invalidated + active": f"other {_SERVES}",
    "invalidated + overdue": "new (the newest session of its line was invalidated); recovered after it; other expired",
    "completed": f"already_completed it {_DONE}",
    "completed + active": f"already_completed it {_DONE}",
    "completed + overdue": f"already_completed it {_DONE}",
    "old > active": f"head {_SERVES}",
    "old > overdue": "new (the newest session of its line was expired); recovered after head; head expired",
    "old > expired": "new (the newest session of its line was expired); recovered after head",
    "old > expired + active": f"other {_SERVES}",
    "old > expired + overdue": "new (the newest session of its line was expired); recovered after head; other expired",
    "old > invalidated": "new (the newest session of its line was invalidated); recovered after head",
    "old > invalidated + active": f"other {_SERVES}",
    "old > invalidated + overdue": (
        "new (the newest session of its line was invalidated); recovered after head; other expired"
    ),
    "old > completed": f"already_completed head {_DONE}",
    "old > completed + active": f"already_completed head {_DONE}",
    "old > completed + overdue": f"already_completed head {_DONE}",
    "completed > invalidated": f"already_completed it {_DONE}",
    "completed > invalidated + active": f"already_completed it {_DONE}",
    "completed > invalidated + overdue": f"already_completed it {_DONE}",
    "newest of completed": f"already_completed done {_DONE}",
    "newest of completed + active": f"already_completed done {_DONE}",
    "newest of completed + overdue": f"already_completed done {_DONE}",
    "unknown": "session_unrecoverable it (unknown)",
    "unknown + active": f"other {_SERVES}",
    "unknown + overdue": "session_unrecoverable it (unknown)",
    "deleted": "session_unrecoverable it (deleted)",
    "deleted + active": f"other {_SERVES}",
    "deleted + overdue": "session_unrecoverable it (deleted)",
    "another kind of id": "session_unrecoverable it (unknown)",
    "another kind of id + active": f"other {_SERVES}",
    "another kind of id + overdue": "session_unrecoverable it (unknown)",
}


@pytest.mark.parametrize("name", SITUATIONS)
def test_create_starts_a_line_and_ends_the_active_session(name: str) -> None:
    assert decided(situation(name), make_task(Kind.CREATE, package="gold")).told() == CREATE[name]


@pytest.mark.parametrize("name", SITUATIONS)
def test_renew_follows_the_line_and_grows_it(name: str) -> None:
    met = situation(name)
    assert decided(met, make_task(Kind.RENEW, met.addressed, package="gold")).told() == RENEW[name]


@pytest.mark.parametrize("name", SITUATIONS)
def test_recover_never_kills_a_newer_cart(name: str) -> None:
    met = situation(name)
    assert decided(met, make_task(Kind.RECOVER, met.addressed)).told() == RECOVER[name]


def test_the_tables_know_all_situations() -> None:
    assert set(CREATE) == set(RENEW) == set(RECOVER) == set(SITUATIONS)


def _fresh(session_id: UUID, **values: object) -> Session:
    first = Session(
        id=session_id,
        user_id="ann",
        status=Status.ACTIVE,
        package="gold",
        step=None,
        data={},
        origin=Origin.CREATED,
        line_id=session_id,
        line_position=0,
        line_began_at=NOW,
        previous_session_id=None,
        created_at=NOW,
        expires_at=NOW + LIMITS.ttl,
    )
    return replace(first, **values)


@pytest.mark.parametrize("name", ["active", "unknown"])
def test_a_created_session_holds_what_was_asked_for_and_nothing_else(name: str) -> None:
    task = make_task(Kind.CREATE, package="gold", step="packages", data={"seats": 1, "note": None})
    expected = _fresh(task.session_id, step="packages", data={"seats": 1})
    assert decided(situation(name), task).new == expected


def test_a_renewed_unknown_session_begins_with_what_was_given() -> None:
    met = situation("unknown")
    done = decided(met, make_task(Kind.RENEW, met.addressed, package="gold", data={"seats": 1}))
    assert done.new == _fresh(done.new_id, data={"seats": 1})


@pytest.mark.parametrize("name", sorted(name for name, told in RENEW.items() if " after " in told))
def test_a_renewed_session_carries_all_of_the_newest_but_what_changes(name: str) -> None:
    met = situation(name)
    newest = met.sessions.get("head", met.it)
    done = decided(met, make_task(Kind.RENEW, met.addressed, package="platinum", data={"seats": 9, "colour": None}))
    origin = Origin.RENEWED if "renewed" in RENEW[name] else Origin.RECOVERED
    expected = replace(
        _fresh(done.new_id, package="platinum", step="packages", data={"seats": 9}, origin=origin),
        line_id=met.it.id,
        line_position=newest.line_position + 1,
        line_began_at=met.it.created_at,
        previous_session_id=newest.id,
    )
    assert done.new == expected


@pytest.mark.parametrize("name", sorted(name for name, told in RECOVER.items() if " after " in told))
def test_a_recovered_session_carries_all_of_the_newest(name: str) -> None:
    met = situation(name)
    newest = met.sessions.get("head", met.it)
    done = decided(met, make_task(Kind.RECOVER, met.addressed))
    expected = replace(
        newest,
        id=done.new_id,
        status=Status.ACTIVE,
        origin=Origin.RECOVERED,
        line_position=newest.line_position + 1,
        previous_session_id=newest.id,
        created_at=NOW,
        expires_at=NOW + LIMITS.ttl,
    )
    assert done.new == expected


def test_ten_clicks_on_recover_give_one_session() -> None:
    met = situation("expired")
    first = decided(met, make_task(Kind.RECOVER, met.addressed))
    sessions = {"it": met.it, "new": first.new}
    for _ in range(9):
        again = decided(replace(met, sessions=sessions), make_task(Kind.RECOVER, met.addressed))
        assert (again.outcome.session_id, again.shopper.added()) == (first.new_id, [])
