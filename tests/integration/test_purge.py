"""Records go after their retention, but for those that someone still needs; the figures stay exact."""

import asyncio
import random
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from psycopg import Connection
from psycopg.rows import scalar_row
from sqlalchemy import Engine
from uuid_utils.compat import uuid7

from db import sweeps
from db.engine import async_engine
from db.figures import Figures, figures
from db.lifecycle import Kind, Refusal, Session, Status
from db.settings import DatabaseSettings
from tests.factories import LIMITS, accept, add_sessions, make_next, make_row, make_task, read_sessions, read_tasks
from workers.maintenance import Maintenance, maintenance_engine
from workers.settings import WorkerSettings

DAY = timedelta(days=1)
KEPT = timedelta(days=7)
FINISH = """
UPDATE session_tasks SET state = %(state)s, refusal = %(refusal)s, result_session_id = session_id,
    addressed_status = %(addressed)s, finished_at = now() - %(age)s WHERE id = %(id)s
"""


@pytest.fixture
def url(database_url: str) -> str:
    """A database of the test's own: figures count all of it."""
    return database_url


@pytest.fixture
def maintenance(url: str) -> Iterator[Maintenance]:
    """A maintenance with the default retention of records, 7 days."""
    settings = WorkerSettings(database_url=url, redis_url="redis://nowhere/0")
    engine = maintenance_engine(settings)
    yield Maintenance(engine, LIMITS, settings, lambda _: True, lambda *_: True)
    engine.dispose()


def finish(
    connection: Connection[Any],
    kind: Kind,
    age: timedelta,
    refusal: Refusal | None = None,
    addressed: Status | None = None,
) -> Any:
    """A task that finished that long ago; its id."""
    task = make_task(kind, user_id=f"user-{uuid7()}")
    accept(connection, task)
    state = "FAILURE" if refusal else "SUCCESS"
    row = {"id": task.id, "age": age, "state": state, "refusal": refusal, "addressed": addressed}
    connection.execute(FINISH, row)
    return task.id


def test_the_purge_keeps_refused_payments_the_pending_and_the_young(
    connection: Connection[Any], maintenance: Maintenance
) -> None:
    old, young = KEPT + timedelta(minutes=1), KEPT - timedelta(minutes=1)
    pending = make_task(Kind.CREATE, package="gold")
    accept(connection, pending)
    connection.execute("UPDATE session_tasks SET accepted_at = now() - interval '30 days'")
    kept = {pending.id}
    kept |= {finish(connection, Kind.COMPLETE, old, refusal) for refusal in Refusal}
    kept |= {finish(connection, kind, young) for kind in Kind}
    for kind in Kind:
        finish(connection, kind, old)
    for kind in (Kind.CREATE, Kind.RENEW, Kind.RECOVER):
        finish(connection, kind, old, Refusal.GAVE_UP)
    assert maintenance.purge_records() == {"rows": 7}
    assert set(connection.cursor(row_factory=scalar_row).execute("SELECT id FROM session_tasks")) == kept


def test_the_purge_takes_old_records_of_maintenance_too(connection: Connection[Any], maintenance: Maintenance) -> None:
    for _ in range(3):
        maintenance.expire_sessions()
    connection.execute(
        """UPDATE maintenance_runs SET requested_at = requested_at - interval '8 days'
        WHERE id <> (SELECT id FROM maintenance_runs ORDER BY id DESC LIMIT 1)"""
    )
    finish(connection, Kind.CREATE, KEPT + DAY)
    assert maintenance.purge_records() == {"rows": 3}
    assert connection.execute("SELECT count(*) FROM maintenance_runs").fetchone() == (2,)


def count_figures(url: str, since: date) -> Figures:
    async def read() -> Figures:
        engine = async_engine(DatabaseSettings(database_url=url), "test")
        try:
            async with engine.connect() as connection:
                return await figures(connection, since)
        finally:
            await engine.dispose()

    return asyncio.run(read())


def a_history(connection: Connection[Any], chance: random.Random) -> tuple[list[Session], list[tuple[date, bool]]]:
    """Lines and recoveries of the last 20 days; the recoveries as day and success, those that count."""
    sessions: list[Session] = []
    for number in range(120):
        age = chance.uniform(0, 20) * DAY
        line = [make_row(f"user-{number}", chance.choice([*Status]), age=age)]
        while line[-1].status is not Status.COMPLETED and chance.random() < 0.4:
            line[-1] = replace(line[-1], status=Status.INVALIDATED)
            later = line[-1].created_at + chance.uniform(0, 1) * min(DAY, datetime.now(UTC) - line[-1].created_at)
            line.append(make_next(line[-1], chance.choice([Status.COMPLETED, Status.EXPIRED]), now=later))
        sessions += line
    for _ in range(120):
        refusal = chance.choice([None, None, Refusal.SESSION_UNRECOVERABLE])
        finish(connection, Kind.RECOVER, chance.uniform(0, 20) * DAY, refusal, chance.choice([None, *Status]))
    add_sessions(connection, *sessions)
    counted = [row for row in read_tasks(connection) if row["addressed_status"] != Status.ACTIVE]
    return sessions, [(row["finished_at"].date(), row["state"] == "SUCCESS") for row in counted]


def test_the_figures_are_exact_before_and_after_deletion(
    connection: Connection[Any], maintenance: Maintenance, url: str
) -> None:
    sessions, recoveries = a_history(connection, random.Random(7))
    now = datetime.now(UTC)
    before = {}
    for days in (0, 3, 8, 30):
        since = (now - days * DAY).date()
        begun = [s for s in sessions if s.line_position == 0 and s.line_began_at.date() >= since]
        completed = [s for s in sessions if s.status is Status.COMPLETED and s.line_began_at.date() >= since]
        tried = [success for day, success in recoveries if day >= since]
        before[since] = count_figures(url, since)
        assert before[since].active_sessions == sum(s.status is Status.ACTIVE and s.expires_at > now for s in sessions)
        assert before[since].completion_rate == len(completed) / len(begun)
        assert before[since].recovery_success_rate == sum(tried) / len(tried)
        assert before[since].cleanups_24h == 0
    maintenance.delete_sessions()
    maintenance.purge_records()
    left = read_sessions(connection)
    assert 0 < len(left) < len(sessions)
    assert {s.id for s in sessions if s.status is Status.COMPLETED} <= {s.id for s in left}
    for since, then in before.items():
        after = count_figures(url, since)
        assert (after.completion_rate, after.recovery_success_rate) == (
            then.completion_rate,
            then.recovery_success_rate,
        )
        assert (after.active_sessions, after.cleanups_24h) == (then.active_sessions, 1)


def test_without_anything_to_count_there_is_no_rate(connection: Connection[Any], url: str) -> None:
    empty = count_figures(url, datetime.now(UTC).date())
    assert (empty.active_sessions, empty.completion_rate, empty.recovery_success_rate) == (0, None, None)
    assert empty.cleanups_24h == 0


def test_only_successful_cleanups_of_the_last_day_count(
    connection: Connection[Any], maintenance: Maintenance, url: str
) -> None:
    maintenance.expire_sessions()
    maintenance.delete_sessions()
    maintenance.purge_records()  # no cleanup
    maintenance.expire_sessions()
    connection.execute("UPDATE maintenance_runs SET error = 'E' WHERE id = (SELECT id FROM maintenance_runs LIMIT 1)")
    assert count_figures(url, datetime.now(UTC).date()).cleanups_24h == 2
    connection.execute("UPDATE maintenance_runs SET requested_at = now() - interval '25 hours'")
    assert count_figures(url, datetime.now(UTC).date()).cleanups_24h == 0


def test_a_purge_counts_each_day_once_however_small_its_steps(connection: Connection[Any], engine: Engine) -> None:
    for n in range(9):
        finish(connection, Kind.RECOVER, KEPT + n % 3 * DAY, None if n % 2 else Refusal.SESSION_UNRECOVERABLE)
    steps = []
    while not steps or steps[-1]:
        with engine.begin() as swept:
            steps.append(sweeps.purge_tasks(swept, 2, KEPT))
    assert steps == [2, 2, 2, 2, 1, 0]
    counts = connection.execute("SELECT recoveries_finished, recoveries_succeeded FROM daily_counts ORDER BY day DESC")
    assert counts.fetchall() == [(3, 1), (3, 2), (3, 1)]
