"""Beat alone, with the default limits: what is due is marked and deleted, nothing else is."""

from datetime import timedelta
from typing import Any

import pytest
from psycopg import Connection

from db.lifecycle import Session, Status
from tests.acceptance.conftest import Measure
from tests.factories import LIMITS, add_sessions, make_row, read_sessions
from tests.stack import Stack, eventually

pytestmark = pytest.mark.acceptance

OVER = timedelta(seconds=1)
UNDER = -timedelta(minutes=10)  # longer than the test takes


def test_beat_decides_rightly_around_24_hours_and_7_days_and_completed_rows_stay(
    stack: Stack, connection: Connection[Any], measured: Measure
) -> None:
    rows = {
        (limit, past, status): make_row(f"{limit.days}-{past}-{status}", status, age=limit + past)
        for limit in (LIMITS.ttl, LIMITS.retention)
        for past in (OVER, UNDER)
        for status in Status
    }
    add_sessions(connection, *rows.values())
    stack.env |= {"EXPIRE_INTERVAL_SECONDS": "0.5", "DELETE_INTERVAL_SECONDS": "0.5"}
    stack.start("maintenance")
    with measured("beat marks and deletes what is due, from the start of its processes"):
        stack.start("beat")
        expected = {session.id: after for key, session in rows.items() if (after := _after(*key, session)) is not None}

        def now() -> dict[Any, Status]:
            return {session.id: session.status for session in read_sessions(connection)}

        eventually(lambda: now() == expected)
    runs = "SELECT task, count(*) > 2, bool_and(trigger = 'beat' AND error IS NULL) FROM maintenance_runs GROUP BY 1"
    done = [(f"maintenance.{name}_sessions", True, True) for name in ("delete", "expire")]
    eventually(lambda: sorted(connection.execute(runs).fetchall()) == done, "and goes on")
    assert now() == expected


def _after(limit: timedelta, past: timedelta, status: Status, session: Session) -> Status | None:
    if limit == LIMITS.retention and past == OVER and status is not Status.COMPLETED:
        return None
    young = limit == LIMITS.ttl and past == UNDER
    return Status.EXPIRED if status is Status.ACTIVE and not young else status
