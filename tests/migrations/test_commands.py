"""`python -m db.migrate`: up, check, down, from anywhere, twice at once, and what it says when it cannot."""

import logging
import os
import subprocess
import sys
import time
from pathlib import Path
from unittest import mock

import pytest

from db import migrate
from local.embedded import free_port
from local.servers import EmbeddedPostgres
from tests.migrations.database import Database
from tests.migrations.shapes import SUPABASE, session
from tests.stack import ROOT

USER = "00000000-0000-4000-8000-00000000000a"


def test_up_and_down_on_an_empty_database(database: Database) -> None:
    empty = database.dump()
    assert "at revision base, the code at 0002: migrate it up" in database.migrate("check", code=1)
    for _ in range(2):
        assert database.migrate("up") == "The schema is at revision 0002.\n"
        full = database.dump()
        assert database.migrate("up") == "The schema is at revision 0002.\n"
        assert database.dump() == full
        assert database.migrate("check") == ""
        assert database.migrate("down", "base") == "The schema is at revision base.\n"
        assert database.dump() == empty
        assert database.migrate("down", code=1) == "There is nothing to take down."
    database.migrate("up")
    database.migrate("down", "base")
    assert database.dump() == empty


def test_what_others_made_stays(database: Database) -> None:
    database.execute(
        """
        CREATE TABLE orders (updated_at timestamptz);
        CREATE FUNCTION set_updated_at() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN NEW.updated_at = '2000-01-01'; RETURN NEW; END $$;
        CREATE TRIGGER ours BEFORE UPDATE ON orders FOR EACH ROW EXECUTE FUNCTION set_updated_at();
        """
    )
    before = database.dump()
    database.migrate("up")
    assert database.migrate("check") == ""
    database.migrate("down", "base")
    assert database.dump() == before


def test_in_a_schema_of_its_own(database: Database) -> None:
    database.execute("CREATE SCHEMA shop; CREATE TABLE public.checkout_sessions (id int);")
    name = database.url.rsplit("/", 1)[1]
    database.execute(f"ALTER DATABASE {name} SET search_path = shop")
    database.migrate("up")
    assert database.migrate("check") == ""
    database.migrate("down", "base")
    assert database.execute("SELECT relname FROM pg_class WHERE relnamespace = 'shop'::regnamespace ORDER BY 1") == [
        {"relname": "alembic_version"},
        {"relname": "alembic_version_pkc"},
    ]


@pytest.mark.parametrize("server", [18], indirect=True)
def test_from_any_folder_by_any_spelling(database: Database, tmp_path: Path) -> None:
    rest = database.url.split("://")[1]
    for scheme in ("postgres", "postgresql"):
        database.url = f"{scheme}://{rest}"
        database.migrate("up")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "db.migrate", "up"],
        cwd=tmp_path,
        env={"DATABASE_URL": database.url, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "The schema is at revision 0002.\n")
    done = subprocess.run(
        [str(Path(sys.executable).with_name("alembic")), "-c", str(ROOT / "alembic.ini"), "check"],
        cwd=tmp_path,
        env={"DATABASE_URL": database.url},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (0, "No new upgrade operations detected.\n")


def test_two_at_once(database: Database) -> None:
    database.execute(SUPABASE.sql)
    both = [database.start("up") for _ in range(2)]
    said = [process.communicate(timeout=60)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert ["will forbid to delete" in words for words in said].count(True) == 1
    assert database.migrate("check") == ""


def test_no_logger_is_disabled(database: Database) -> None:
    logger = logging.getLogger("somebody.else")
    handlers = logging.getLogger().handlers[:]
    database.migrate("up")
    assert not logger.disabled
    assert logging.getLogger().handlers == handlers


@pytest.mark.parametrize(
    ("drift", "sentence"),
    [
        ("ALTER TABLE session_tasks ADD COLUMN extra text", "column extra of session_tasks is not in the models"),
        ("ALTER TABLE checkout_sessions ADD COLUMN extra text", "column extra of checkout_sessions is not in the"),
        ("ALTER TABLE daily_counts ALTER COLUMN lines_begun DROP DEFAULT", "column lines_begun of daily_counts is"),
        ("ALTER TABLE daily_counts ALTER COLUMN lines_begun TYPE int", "`integer NOT NULL DEFAULT 0`, in the models"),
        ("ALTER TABLE checkout_sessions ALTER COLUMN user_id DROP NOT NULL", "column user_id of checkout_sessions is"),
        (
            "ALTER TABLE session_tasks ALTER COLUMN seq DROP IDENTITY",
            "column seq of session_tasks is `bigint NOT NULL`",
        ),
        ("ALTER TABLE checkout_sessions DROP COLUMN step", "The column step of checkout_sessions is missing."),
        (
            "DROP INDEX uq_checkout_sessions_active",
            "The index uq_checkout_sessions_active of checkout_sessions is missing",
        ),
        (
            "DROP INDEX ix_session_tasks_due; CREATE INDEX ix_session_tasks_due ON session_tasks (due_at)",
            "The index ix_session_tasks_due of session_tasks is `CREATE INDEX ix_session_tasks_due ON session_tasks",
        ),
        (
            "ALTER TABLE checkout_sessions DROP CONSTRAINT ck_checkout_sessions_status,"
            " ADD CONSTRAINT ck_checkout_sessions_status CHECK (status <> '')",
            "The constraint ck_checkout_sessions_status of checkout_sessions is `CHECK (status <> ''::text)`",
        ),
        (
            "ALTER TABLE checkout_sessions DISABLE TRIGGER checkout_sessions_updated_at",
            "The trigger checkout_sessions_updated_at of checkout_sessions is",
        ),
        (
            "CREATE OR REPLACE FUNCTION set_updated_at() RETURNS trigger LANGUAGE plpgsql AS"
            " $$ BEGIN RETURN NEW; END $$",
            "AS BEGIN RETURN NEW; END`, in the models",
        ),
        ("DROP TABLE maintenance_runs", "The table maintenance_runs is missing."),
        ("ALTER TABLE session_tasks DISABLE ROW LEVEL SECURITY", "is `a table without row-level security`, in the"),
        ("DROP POLICY checkout_own ON session_tasks", "The policy checkout_own of session_tasks is missing."),
        (
            "ALTER POLICY checkout_own ON checkout_sessions USING (true)",
            "The policy checkout_own of checkout_sessions is `RESTRICTIVE FOR * TO checkout_navigator, checkout_reader",
        ),
        ("CREATE POLICY x ON daily_counts TO checkout_worker USING (true)", "policy x of daily_counts is not in the"),
        ("GRANT DELETE ON session_tasks TO checkout_worker", "The grant checkout_worker of session_tasks is `DELETE, "),
        ("GRANT UPDATE (payload) ON session_tasks TO checkout_acceptor", "UPDATE (payload)`, in the models"),
        ("ALTER TABLE daily_counts SET UNLOGGED", "The table daily_counts is `an unlogged table`"),
        ("DROP TABLE checkout_sessions_undo", "checkout_sessions_undo is missing: the schema cannot be taken back"),
    ],
)
def test_check_names_a_drift(database: Database, drift: str, sentence: str) -> None:
    database.migrate("up")
    database.execute(drift)
    said = database.migrate("check", code=1)
    assert sentence in said
    assert len(said.splitlines()) == 1 or "DROP COLUMN" in drift


def test_check_changes_nothing_and_ignores_the_tables_of_others(database: Database) -> None:
    database.migrate("up")
    database.execute("CREATE TABLE orders (id int)")
    before = database.dump()
    assert database.migrate("check") == ""
    assert database.dump() == before


def test_a_table_in_use_is_not_queued_up_for(database: Database) -> None:
    database.execute(SUPABASE.sql)
    before = database.dump()
    with database.connect() as reader, reader.transaction():
        reader.execute("SELECT FROM checkout_sessions")
        with mock.patch.object(migrate, "LOCK_TIMEOUT", "200ms"):
            assert "in use by a long transaction: nothing was changed" in database.migrate("up", code=1)
        assert database.dump() == before
    database.migrate("up")


def test_another_migrator_is_waited_for_a_while(database: Database) -> None:
    with database.connect() as other, other.transaction():
        other.execute("SELECT pg_advisory_xact_lock(%s)", [migrate.ADVISORY_LOCK])
        with mock.patch.object(migrate, "OTHER_MIGRATOR", "200ms"):
            assert "another migration" in database.migrate("up", code=1)


@pytest.mark.parametrize(("part", "other"), [("/migrations_", "/nowhere_"), ("checkout:", "stranger:")])
def test_what_waiting_cannot_heal_is_said_at_once(database: Database, part: str, other: str) -> None:
    began = time.monotonic()
    database.url = database.url.replace(part, other)
    said = database.migrate("up", code=1)
    assert said.startswith("No connection to the database: ")
    assert len(said.splitlines()) == 1
    assert time.monotonic() - began < migrate.STARTING_SECONDS / 2


def test_a_server_that_never_comes_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(migrate, "STARTING_SECONDS", 0.3)
    database = Database(f"postgresql://nobody:secret@127.0.0.1:{free_port()}/nowhere")
    said = database.migrate("up", code=1)
    assert said.startswith("No connection to the database: ")
    assert "secret" not in said


def test_a_server_that_starts_late_is_waited_for(tmp_path: Path) -> None:
    server = EmbeddedPostgres(tmp_path)
    server.prepare()
    database = Database(server.url)
    process = database.start("up")
    with server:
        said, _ = process.communicate(timeout=60)
        assert (process.returncode, said) == (0, "The schema is at revision 0002.\n")


@pytest.mark.parametrize("arguments", [[], ["sideways"], ["up", "0001"], ["down", "base", "base"]])
def test_usage(arguments: list[str]) -> None:
    assert migrate.main(arguments) == migrate.USAGE


def test_an_unknown_revision_and_a_missing_setting_have_sentences(database: Database) -> None:
    database.migrate("up")
    assert database.migrate("down", "1234", code=1).startswith("The migration cannot run: ")
    environment = {name: value for name, value in os.environ.items() if name != "DATABASE_URL"}
    with mock.patch.dict(os.environ, environment, clear=True), pytest.raises(SystemExit, match="DATABASE_URL"):
        migrate.main(["up"])


def test_updated_at_is_kept_by_the_trigger(database: Database) -> None:
    database.migrate("up")
    database.execute(row())
    database.execute("UPDATE checkout_sessions SET updated_at = '2000-01-01', step = 'checkout'")
    found = database.execute(
        "SELECT updated_at > created_at AND updated_at > now() - interval '1 minute' AS ok FROM checkout_sessions"
    )
    assert found == [{"ok": True}]


def row(**values: str) -> str:
    """A session, with some of its values changed."""
    default = {
        "id": f"'{session(9)}'",
        "user_id": "'somebody'",
        "status": "'active'",
        "package": "'gold'",
        "origin": "'created'",
        "line_id": f"'{session(9)}'",
        "line_position": "0",
        "line_began_at": "now()",
        "expires_at": "now() + interval '24 hours'",
    }
    all_values = {**default, **values}
    return f"INSERT INTO checkout_sessions ({', '.join(all_values)}) VALUES ({', '.join(all_values.values())})"


IMPOSSIBLE = [
    ({"status": "'lost'"}, "ck_checkout_sessions_status"),
    ({"origin": "'found'", "line_position": "1", "previous_session_id": f"'{USER}'"}, "ck_checkout_sessions_origin"),
    ({"status": "'completed'", "payment_reference": "'p'"}, "ck_checkout_sessions_completed_at"),
    ({"completed_at": "now()"}, "ck_checkout_sessions_completed_at"),
    ({"status": "'completed'", "completed_at": "now()"}, "ck_checkout_sessions_payment_reference"),
    ({"payment_reference": "'p'"}, "ck_checkout_sessions_payment_reference"),
    ({"line_position": "1", "origin": "'renewed'"}, "ck_checkout_sessions_previous"),
    ({"origin": "'renewed'"}, "ck_checkout_sessions_line_position"),
    ({"expires_at": "now()"}, "ck_checkout_sessions_expires_at"),
    ({"id": f"'{session(4)}'", "line_id": f"'{USER}'"}, "pk_checkout_sessions"),
    ({"line_id": f"'{session(4)}'"}, "uq_checkout_sessions_line"),
    ({"user_id": f"'{USER}'"}, "uq_checkout_sessions_active"),
    (
        {"status": "'completed'", "completed_at": "now()", "payment_reference": "'pi_4'"},
        "uq_checkout_sessions_payment_reference",
    ),
    (
        {
            "status": "'completed'",
            "completed_at": "now()",
            "payment_reference": "'pi_5'",
            "origin": "'renewed'",
            "line_id": f"'{session(4)}'",
            "line_position": "1",
            "previous_session_id": f"'{session(4)}'",
        },
        "uq_checkout_sessions_line_completed",
    ),
]


@pytest.mark.parametrize("taken_over", [False, True])
def test_impossible_rows_are_refused_by_name(database: Database, *, taken_over: bool) -> None:
    if taken_over:
        database.execute(SUPABASE.sql)
    database.migrate("up")
    if not taken_over:
        completed = {"status": "'completed'", "completed_at": "now()", "payment_reference": "'pi_4'"}
        database.execute(row(id=f"'{session(4)}'", line_id=f"'{session(4)}'", **completed))
        database.execute(row(id=f"'{session(2)}'", line_id=f"'{session(2)}'", user_id=f"'{USER}'"))
    assert [(values, database.refusal(row(**values))) for values, _ in IMPOSSIBLE] == IMPOSSIBLE
    database.execute(row())
