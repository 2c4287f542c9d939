"""The maintenance runs: one at a time, within a budget, on record whatever happens."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import timedelta
from itertools import count
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from psycopg import Connection
from psycopg.rows import dict_row
from uuid_utils.compat import uuid7

from db.lifecycle import Kind, Status
from tests.factories import LIMITS, accept, add_sessions, make_row, make_task
from tests.stack import ROOT, eventually
from workers import maintenance as module
from workers.maintenance import LOCKS, Maintenance, maintenance_engine
from workers.messages import DELETE_SESSIONS, EXPIRE_SESSIONS, PURGE_RECORDS
from workers.settings import WorkerSettings

OVER = LIMITS.ttl + timedelta(minutes=1)
WAITING = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
OLD = LIMITS.retention + timedelta(minutes=1)


@pytest.fixture
def url(database_url: str) -> str:
    """A database of the test's own: maintenance looks at all of it."""
    return database_url


class Sent(list):
    """What was rung or sent."""

    def __call__(self, *what: Any) -> bool:
        self.append(what)
        return True


@pytest.fixture
def make(url: str) -> Iterator[Callable[[], Maintenance]]:
    """Makes a maintenance as each worker has its own."""
    settings = WorkerSettings(database_url=url, redis_url="redis://nowhere/0")
    with ExitStack() as stack:

        def make() -> Maintenance:
            engine = maintenance_engine(settings)
            stack.callback(engine.dispose)
            return Maintenance(engine, LIMITS, settings, ring=Sent(), send=Sent())

        yield make


def runs(connection: Connection[Any]) -> list[dict[str, Any]]:
    """The records, oldest first."""
    return connection.cursor(row_factory=dict_row).execute("SELECT * FROM maintenance_runs ORDER BY id").fetchall()


def overdue(connection: Connection[Any], number: int, age: timedelta = OVER) -> None:
    add_sessions(connection, *(make_row(f"user-{uuid7()}", age=age) for _ in range(number)))


def test_every_run_leaves_its_record(connection: Connection[Any], make: Callable[[], Maintenance]) -> None:
    maintenance = make()
    overdue(connection, 3)
    overdue(connection, 2, OLD)
    assert maintenance.expire_sessions() == {"rows": 5}
    assert maintenance.delete_sessions(trigger="command") == {"rows": 2}
    assert maintenance.purge_records() == {"rows": 0}
    assert maintenance.redeliver_tasks() == {"rung": 0, "cleanups": 0}, "the one that leaves none: it runs so often"
    records = runs(connection)
    assert [(run["task"], run["trigger"], run["rows"], run["error"]) for run in records] == [
        (EXPIRE_SESSIONS, "beat", 5, None),
        (DELETE_SESSIONS, "command", 2, None),
        (PURGE_RECORDS, "beat", 0, None),
    ]
    assert all(run["requested_at"] <= run["began_at"] <= run["finished_at"] for run in records)


def test_a_run_that_fails_is_on_record_with_what_it_did_and_hinders_no_later_one(
    connection: Connection[Any], make: Callable[[], Maintenance], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SWEEP_LIMIT", 2)
    overdue(connection, 2, OVER + timedelta(hours=1))
    add_sessions(connection, make_row("poison", age=OVER))
    connection.execute(
        """CREATE FUNCTION poison() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN IF NEW.user_id = 'poison' THEN RAISE 'poison'; END IF; RETURN NEW; END $$;
        CREATE TRIGGER poison BEFORE UPDATE ON checkout_sessions FOR EACH ROW EXECUTE FUNCTION poison()"""
    )
    maintenance = make()
    with pytest.raises(Exception, match="poison"):
        maintenance.expire_sessions()
    (run,) = runs(connection)
    assert (run["rows"], run["error"]) == (2, "ProgrammingError")
    assert run["finished_at"] is not None
    connection.execute("DROP TRIGGER poison ON checkout_sessions")
    assert make().expire_sessions() == maintenance.expire_sessions() | {"rows": 1}


@pytest.mark.parametrize("name", [EXPIRE_SESSIONS, DELETE_SESSIONS, PURGE_RECORDS])
def test_beats_tick_gives_way_to_a_run_under_way_and_leaves_no_record(
    connection: Connection[Any], make: Callable[[], Maintenance], name: str
) -> None:
    maintenance = make()
    tick = getattr(maintenance, name.removeprefix("maintenance."))
    connection.execute("SELECT pg_advisory_lock(%s)", [LOCKS[name]])
    assert tick() == {"skipped": "another run is under way"}
    assert runs(connection) == []
    connection.execute("SELECT pg_advisory_unlock(%s)", [LOCKS[name]])
    assert tick() == {"rows": 0}


def test_two_runs_of_one_kind_are_never_under_way_together(
    connection: Connection[Any], connect: Callable[[], Connection[Any]], make: Callable[[], Maintenance]
) -> None:
    overdue(connection, 1)
    connection.execute(
        """CREATE FUNCTION linger() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN PERFORM pg_advisory_xact_lock(1); RETURN NEW; END $$;
        CREATE TRIGGER linger BEFORE UPDATE ON checkout_sessions FOR EACH ROW EXECUTE FUNCTION linger()"""
    )
    with ThreadPoolExecutor() as pool, connect() as gate:
        gate.execute("SELECT pg_advisory_lock(1)")
        first = pool.submit(make().expire_sessions)
        eventually(lambda: connection.execute(WAITING).fetchone()[0] == 1)
        assert make().expire_sessions() == {"skipped": "another run is under way"}
        assert make().delete_sessions() == {"rows": 0}, "another kind does not wait"
        gate.execute("SELECT pg_advisory_unlock(1)")
        assert first.result(60) == {"rows": 1}


def test_who_asks_for_a_run_waits_for_the_one_under_way(
    connection: Connection[Any], make: Callable[[], Maintenance]
) -> None:
    overdue(connection, 1)
    connection.execute("SELECT pg_advisory_lock(%s)", [LOCKS[EXPIRE_SESSIONS]])
    with ThreadPoolExecutor() as pool:
        asked = pool.submit(make().expire_sessions, trigger="command")
        eventually(lambda: connection.execute(WAITING).fetchone()[0] == 1)
        assert runs(connection) == []
        connection.execute("SELECT pg_advisory_unlock(%s)", [LOCKS[EXPIRE_SESSIONS]])
        assert asked.result(60) == {"rows": 1}


def test_a_run_ends_when_its_budget_is_used_up_and_the_next_goes_on(
    connection: Connection[Any], make: Callable[[], Maintenance], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SWEEP_LIMIT", 2)
    ticks = count(step=module.BUDGET_SECONDS / 4)  # each look at the clock is a quarter of the budget later
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: next(ticks)))
    overdue(connection, 9)
    assert [make().expire_sessions()["rows"] for _ in range(3)] == [6, 3, 0]


@pytest.mark.parametrize("state", ["PENDING", "SUCCESS"])
def test_a_sweep_rests_between_small_batches_while_shoppers_are_at_work(
    connection: Connection[Any], make: Callable[[], Maintenance], monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    monkeypatch.setattr(module, "BUSY_LIMIT", 2)
    rests: list[float] = []
    clock = SimpleNamespace(monotonic=time.monotonic, sleep=rests.append)
    monkeypatch.setattr(module, "time", clock)
    overdue(connection, 5)
    accept(connection, make_task(Kind.CREATE, user_id="at work"))
    if state == "SUCCESS":
        connection.execute(
            "UPDATE session_tasks SET state = 'SUCCESS', result_session_id = session_id,"
            " finished_at = now() + interval '1 hour'"  # so that no slow test outlives its second
        )
    assert make().expire_sessions()["rows"] == 5
    assert len(rests) == 2
    assert all(rest > 0 for rest in rests)
    connection.execute(
        "UPDATE session_tasks SET state = 'SUCCESS', result_session_id = session_id, finished_at = '-infinity'"
    )
    overdue(connection, 5)
    assert make().expire_sessions()["rows"] == 5
    assert len(rests) == 2, "nobody is at work"


def test_many_runs_at_once_do_each_thing_once(
    connection: Connection[Any], make: Callable[[], Maintenance], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SWEEP_LIMIT", 50)
    monkeypatch.setattr(module, "DELETE_LIMIT", 50)
    days = [LIMITS.retention + timedelta(days=n % 20, minutes=1) for n in range(400)]
    add_sessions(connection, *(make_row(f"user-{uuid7()}", age=age) for age in days))
    overdue(connection, 300)
    tasks = [make_task(Kind.RECOVER, user_id=f"user-{n}") for n in range(400)]
    accept(connection, *tasks)
    connection.execute(
        """UPDATE session_tasks SET state = 'SUCCESS', result_session_id = session_id,
            finished_at = now() - interval '8 days' - seq % 20 * interval '1 day'"""
    )
    with ThreadPoolExecutor(6) as pool:
        asked = [
            *(pool.submit(make().expire_sessions, trigger="command") for _ in range(2)),
            *(pool.submit(make().delete_sessions, trigger="command") for _ in range(2)),
            *(pool.submit(make().purge_records) for _ in range(2)),
        ]
        done = [run.result(60) for run in asked]
    done.insert(2, make().delete_sessions())  # each passes over what the others just lock
    assert sum(run.get("rows", 0) for run in done[2:5]) == 400
    assert sum(run.get("rows", 0) for run in done[5:]) == 400
    assert 300 <= sum(run.get("rows", 0) for run in done[:2]) <= 700, "what is deleted first need not be marked"
    counts = "SELECT sum(lines_begun), sum(recoveries_finished), sum(recoveries_succeeded) FROM daily_counts"
    assert connection.execute(counts).fetchone() == (400, 400, 400)
    assert connection.execute("SELECT status, count(*) FROM checkout_sessions GROUP BY 1").fetchall() == [
        ("expired", 300)
    ]


def ask_over_http(connection: Connection[Any], age: str = "0 s") -> UUID:
    """What the API writes for a cleanup."""
    run_id = uuid7()
    connection.execute(
        """INSERT INTO maintenance_runs (id, task, trigger, cleanup_id, requested_at)
        VALUES (%s, %s, 'http', %s, now() - CAST(%s AS interval))""",
        (run_id, EXPIRE_SESSIONS, uuid7(), age),
    )
    return run_id


def test_a_run_that_was_asked_for_over_http_is_done_once(
    connection: Connection[Any], make: Callable[[], Maintenance]
) -> None:
    run_id = ask_over_http(connection)
    overdue(connection, 1)
    assert make().expire_sessions(str(run_id)) == {"rows": 1}
    overdue(connection, 1)
    assert make().expire_sessions(str(run_id)) == {"skipped": "this run is finished"}
    (run,) = runs(connection)
    assert (run["id"], run["trigger"], run["rows"]) == (run_id, "http", 1)


def test_a_cleanup_whose_doorbell_was_lost_is_sent_again(
    connection: Connection[Any], make: Callable[[], Maintenance]
) -> None:
    fresh, lost, ancient = (ask_over_http(connection, age) for age in ("0 s", "4 s", "2 h"))
    tasks = [make_task(kind, user_id=kind, package="gold") for kind in (Kind.CREATE, Kind.RENEW)]
    accept(connection, *tasks, patience=0)
    maintenance = make()
    assert maintenance.redeliver_tasks() == {"rung": 2, "cleanups": 1}
    assert maintenance.send == [(EXPIRE_SESSIONS, [str(lost)])]
    assert sorted(maintenance.ring[0][0]) == sorted((task.id, task.kind) for task in tasks)
    assert {run["id"] for run in runs(connection)} == {fresh, lost, ancient}
    maintenance.expire_sessions(str(lost))
    assert maintenance.redeliver_tasks() == {"rung": 0, "cleanups": 0}


def test_the_command_expires_and_deletes_by_hand(connection: Connection[Any], url: str) -> None:
    overdue(connection, 2)
    overdue(connection, 1, OLD)
    add_sessions(connection, make_row("buyer", Status.COMPLETED, age=OLD))
    env = {"DATABASE_URL": url, "REDIS_URL": "redis://nowhere/0"}
    done = subprocess.run([sys.executable, "-m", "workers.cleanup"], cwd=ROOT, env=env, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "expired 3 sessions, deleted 1 sessions\n"), done.stderr
    assert [run["trigger"] for run in runs(connection)] == ["command", "command"]
