"""Roles and rights: made where they are missing, taken from outsiders, given back as they were."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from db.access import Role
from local.servers import EmbeddedPostgres
from tests.conftest import create_database
from tests.migrations.database import Database
from tests.migrations.shapes import SUPABASE, A, session
from tests.stack import ROOT

OUTSIDERS = """
    DO $$ BEGIN CREATE ROLE anon; EXCEPTION WHEN duplicate_object THEN NULL; END $$;
    DO $$ BEGIN CREATE ROLE authenticated; EXCEPTION WHEN duplicate_object THEN NULL; END $$;
    DO $$ BEGIN CREATE ROLE service_role; EXCEPTION WHEN duplicate_object THEN NULL; END $$;
    ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT ALL ON TABLES TO anon, authenticated, service_role;
    ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT ALL ON SEQUENCES TO anon, authenticated, service_role;
"""
RIGHTS = """
    SELECT relname, coalesce(nullif(grantee, 0)::regrole::text, 'PUBLIC') AS grantee,
        string_agg(privilege_type, ', ' ORDER BY privilege_type) AS privileges
    FROM pg_class, aclexplode(relacl) WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'S')
        AND coalesce(nullif(grantee, 0)::regrole::text, 'PUBLIC') IN ('anon', 'authenticated', 'PUBLIC')
    GROUP BY 1, 2 ORDER BY 1, 2
"""
CLOSED = """
    SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' AND NOT relrowsecurity
"""
OURS = {"alembic_version", "checkout_sessions", "checkout_sessions_undo", "daily_counts", "maintenance_runs"} | {
    "session_tasks",
    "session_tasks_seq_seq",
}


@pytest.fixture
def supabase(database: Database) -> Iterator[Database]:
    """A project as Supabase makes it: outsiders get all rights on whatever is made."""
    database.execute(OUTSIDERS)
    yield database
    database.execute(OUTSIDERS.replace("GRANT", "REVOKE").replace(" TO ", " FROM "))


def test_outsiders_lose_what_default_privileges_gave_them(supabase: Database) -> None:
    empty = supabase.dump()
    supabase.migrate("up")
    assert supabase.migrate("check") == ""
    assert supabase.execute(RIGHTS) == []
    assert supabase.execute(CLOSED) == []
    for outsider in ("anon", "authenticated"):
        for table in OURS:
            assert supabase.refusal(
                f"GRANT {outsider} TO CURRENT_USER; BEGIN; SET LOCAL ROLE {outsider}; SELECT * FROM {table}"
            ).startswith("permission denied for")
    supabase.migrate("down")
    first = supabase.dump()
    assert {row["relname"] for row in supabase.execute(RIGHTS)} == OURS
    for _ in range(3):
        supabase.migrate("up")
        supabase.migrate("down")
        assert supabase.dump() == first
    supabase.migrate("down")
    assert supabase.dump() == empty


def test_an_older_table_stays_readable_through_its_policies_and_is_not_written_past_the_api(supabase: Database) -> None:
    supabase.execute(SUPABASE.sql)
    supabase.execute("GRANT USAGE ON SCHEMA auth TO authenticated; GRANT authenticated, anon TO CURRENT_USER")
    older = supabase.dump()
    supabase.migrate("up")
    left = [row for row in supabase.execute(RIGHTS) if row["relname"] in OURS]
    assert left == [{"relname": "checkout_sessions", "grantee": "authenticated", "privileges": "SELECT"}]
    sees = f"""BEGIN; SELECT set_config('request.jwt.claim.sub', '{A}', true); SET LOCAL ROLE authenticated;
        SELECT id::text FROM checkout_sessions ORDER BY 1"""
    assert [row["id"] for row in supabase.execute(sees)] == [session(1), session(2), session(3)]
    assert supabase.refusal(sees + "; UPDATE checkout_sessions SET status = 'completed'").startswith(
        "permission denied"
    )
    supabase.migrate("down", "base")
    assert supabase.dump() == older


def test_older_policies_neither_open_nor_close_anything_for_our_roles(database: Database) -> None:
    database.execute(SUPABASE.sql)
    database.execute("CREATE POLICY open ON checkout_sessions USING (true)")
    older = database.dump()
    database.migrate("up")
    assert database.migrate("check") == ""

    def count(role: Role, statement: str, user: str = A) -> int:
        with database.connect() as connection, connection.transaction(force_rollback=True):
            connection.execute("SELECT set_config('checkout.user_id', %s, true)", [user])
            connection.execute(f"SET LOCAL ROLE {role}")
            return connection.execute(statement.encode()).rowcount

    assert count(Role.READER, "SELECT id FROM checkout_sessions") == 3  # not all four
    assert count(Role.READER, "SELECT id FROM checkout_sessions", "") == 0
    # "Users change their active" is a restrictive one, by a claim that our connections do not have.
    assert count(Role.WORKER, "UPDATE checkout_sessions SET status = 'expired' WHERE status = 'active'") == 1
    assert count(Role.NAVIGATOR, "UPDATE checkout_sessions SET step = 'x'") == 3
    assert count(Role.MAINTENANCE, "DELETE FROM checkout_sessions") == 3  # not the completed one
    assert count(Role.AUDITOR, "SELECT id FROM checkout_sessions") == 4
    database.migrate("down", "base")
    assert database.dump() == older


def test_who_had_rights_on_an_open_table_sees_what_they_saw(database: Database) -> None:
    database.execute(
        """
        DO $$ BEGIN CREATE ROLE analyst; EXCEPTION WHEN duplicate_object THEN NULL; END $$;
        CREATE TABLE checkout_sessions (id uuid, status text);
        INSERT INTO checkout_sessions VALUES (gen_random_uuid(), 'active');
        GRANT SELECT ON checkout_sessions TO analyst; GRANT analyst TO CURRENT_USER;
        """
    )
    older = database.dump()
    database.migrate("up")
    assert len(database.execute("BEGIN; SET LOCAL ROLE analyst; SELECT id FROM checkout_sessions")) == 1
    database.migrate("down", "base")
    assert database.dump() == older


def test_two_databases_make_the_roles_at_once_and_a_login_that_may_not_is_told_how(tmp_path: Path) -> None:
    """On a server of their own, where no role is yet."""
    with EmbeddedPostgres(tmp_path) as server:
        databases = [Database(create_database(server, f"shop_{n}")) for n in range(3)]
        with psycopg.connect(server.superuser_url, autocommit=True) as admin:
            admin.execute("CREATE ROLE plain LOGIN PASSWORD 'plain'")
            admin.execute("CREATE DATABASE plain OWNER plain")
        plain = Database(f"postgresql+psycopg://plain:plain@127.0.0.1:{server.port}/plain")
        said = plain.migrate("up", code=1)
        assert "let an administrator run `CREATE ROLE checkout_reader NOLOGIN;" in said
        both = [database.start("up") for database in databases]
        told = [process.communicate(timeout=60)[0] for process in both]
        assert [process.returncode for process in both] == [0, 0, 0], told
        assert [database.migrate("check") for database in databases] == ["", "", ""]
        # The roles are there and belong to another login: this one still has to be let in.
        assert "GRANT checkout_reader, " in plain.migrate("up", code=1)
        with psycopg.connect(server.libpq_url, autocommit=True) as maker:
            maker.execute(f"GRANT {', '.join(Role)} TO plain")
        plain.migrate("up")
        assert plain.migrate("check") == ""
        databases[0].migrate("down", "base")  # the others go on
        assert [database.migrate("check") for database in (*databases[1:], plain)] == ["", "", ""]
        doctor = subprocess.run(
            [sys.executable, "-m", "workers.doctor"],
            cwd=ROOT,
            env={"DATABASE_URL": plain.url, "REDIS_URL": "redis://127.0.0.1:1/0"},
            capture_output=True,
            text=True,
        )
        assert doctor.returncode == 0, doctor.stdout + doctor.stderr
