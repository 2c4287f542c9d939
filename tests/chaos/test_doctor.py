"""The doctor finds each breach, told by its name, and finds none where nothing is wrong."""

import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb
from uuid_utils.compat import uuid7

from db.engine import sync_engine
from db.invariants import INVARIANTS, Bounds, examine
from db.settings import DatabaseSettings
from local.servers import EmbeddedPostgres
from tests.conftest import create_database
from tests.stack import ROOT
from workers.doctor import bounds_of
from workers.execution import Executor
from workers.settings import WorkerSettings

USER = "shopper"

# Each planted breach: what Postgres would refuse (constraints and indexes to drop), and the row that must not be.
BREACHES = {
    "one_active": (
        ["DROP INDEX uq_checkout_sessions_active"],
        "UPDATE checkout_sessions SET status = 'active' WHERE status = 'invalidated'",
    ),
    "one_completion": (
        ["DROP INDEX uq_checkout_sessions_line_completed"],
        """UPDATE checkout_sessions SET status = 'completed', completed_at = now(), payment_reference = id
        WHERE status = 'invalidated'
            AND line_id IN (SELECT line_id FROM checkout_sessions WHERE status = 'completed')""",
    ),
    "one_payment": (
        ["DROP INDEX uq_checkout_sessions_payment_reference"],
        """UPDATE checkout_sessions SET status = 'completed', completed_at = now(), payment_reference = 'paid'
        WHERE status = 'active'""",
    ),
    "completed_is_paid": (
        ["ALTER TABLE checkout_sessions DROP CONSTRAINT ck_checkout_sessions_payment_reference"],
        "UPDATE checkout_sessions SET payment_reference = NULL WHERE status = 'completed'",
    ),
    "no_forks": (
        ["DROP INDEX uq_checkout_sessions_line"],
        "UPDATE checkout_sessions SET line_position = 1 WHERE line_position = 2",
    ),
    "no_gaps": ([], "DELETE FROM checkout_sessions WHERE line_position = 1"),
    "sane_times": ([], "UPDATE checkout_sessions SET created_at = created_at + interval '1 hour'"),
    "made_once": ([], "UPDATE session_tasks SET result_session_id = session_id WHERE kind = 'renew'"),
    "completed_once": ([], "UPDATE session_tasks SET accepted_at = now() + interval '30 days' WHERE kind = 'complete'"),
    "success_is_there": (
        [],
        """UPDATE checkout_sessions SET status = 'expired', completed_at = NULL, payment_reference = NULL
        WHERE status = 'completed'""",
    ),
    "refused_honestly": ([], "UPDATE session_tasks SET refusal = 'session_expired' WHERE state = 'FAILURE'"),
    "finished_in_time": (
        [],
        """INSERT INTO session_tasks (id, kind, user_id, session_id, payload, accepted_at)
        VALUES (gen_random_uuid(), 'create', 'other', gen_random_uuid(), '{}', now() - interval '1 day')""",
    ),
    "expired_in_time": (
        [],
        """UPDATE checkout_sessions SET created_at = now() - interval '2 days', expires_at = now() - interval '1 day'
        WHERE status = 'active'""",
    ),
    "deleted_in_time": (
        [],
        """UPDATE checkout_sessions SET created_at = now() - interval '8 days', expires_at = now() - interval '7 days'
        WHERE status = 'invalidated'""",
    ),
}


@pytest.fixture
def lived(database_url: str) -> Iterator[psycopg.Connection[Any]]:
    """A database in which a shopper created, renewed twice, completed, was refused, and began anew."""
    settings = DatabaseSettings(database_url=database_url)
    engine = sync_engine(settings, "test")
    executor = Executor(engine, settings.limits, lambda ids: None, 5, "test")
    with psycopg.connect(database_url.replace("+psycopg", ""), autocommit=True) as connection:

        def ask(kind: str, session_id: Any, **payload: str) -> Any:
            task_id = uuid7()
            row = (task_id, kind, USER, session_id, Jsonb(payload))
            connection.execute(
                "INSERT INTO session_tasks (id, kind, user_id, session_id, payload) VALUES (%s, %s, %s, %s, %s)", row
            )
            executor.execute([task_id], "test")
            query = "SELECT result_session_id FROM session_tasks WHERE id = %s"
            return connection.execute(query, [task_id]).fetchone()[0]  # type: ignore[index]

        first = ask("create", uuid7(), package="silver")
        ask("renew", first, package="gold")
        newest = ask("renew", first, package="silver")
        ask("complete", newest, payment_reference="paid")
        ask("complete", newest, payment_reference="paid twice")
        ask("create", uuid7(), package="silver")
        engine.dispose()
        yield connection


def doctor(database_url: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run the command."""
    env = {"DATABASE_URL": database_url, "REDIS_URL": "redis://localhost", **settings}
    command = [sys.executable, "-m", "workers.doctor"]
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)


def test_a_healthy_database_holds(lived: psycopg.Connection[Any], database_url: str) -> None:
    found = doctor(database_url)
    assert found.returncode == 0, found.stdout + found.stderr
    assert [line.split()[:2] for line in found.stdout.splitlines()] == [["holds", name] for name in INVARIANTS]


def test_each_breach_is_found_by_its_name(
    lived: psycopg.Connection[Any], database_url: str, postgres: EmbeddedPostgres
) -> None:
    assert set(BREACHES) == set(INVARIANTS)
    lived.close()
    settings = DatabaseSettings(database_url=database_url)
    for name, (allowed, broken) in BREACHES.items():
        copy = create_database(postgres, f"broken_{name}", database_url.rsplit("/", 1)[1])
        engine = sync_engine(DatabaseSettings(database_url=copy), "test")
        with engine.begin() as connection:
            for statement in allowed:
                connection.exec_driver_sql(statement)
            assert connection.exec_driver_sql(broken).rowcount > 0, name
        with engine.begin() as connection:
            found = {f.name: f for f in examine(connection, Bounds(settings.limits))}
        engine.dispose()
        assert not [f for f in found.values() if f.unknown], name
        assert found[name].broken, name


def test_no_postgres_is_no_breach() -> None:
    found = doctor("postgresql://checkout@127.0.0.1:9/checkout")
    assert found.returncode == 2
    assert "Postgres cannot be reached" in found.stderr


def test_the_bounds_are_the_settings(database_url: str) -> None:
    settings = WorkerSettings(database_url=database_url, redis_url="redis://localhost", expire_interval_seconds=60)
    assert bounds_of(settings).overdue == timedelta(minutes=8)
