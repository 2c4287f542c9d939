"""What each role may not do in Postgres is refused by Postgres, whatever the code above it asks for."""

import ast
from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg import Connection
from uuid_utils.compat import uuid7

from db.access import ACCESS, Role
from db.lifecycle import Kind, Status
from tests.factories import accept, add_sessions, make_row, make_task
from tests.integration.conftest import libpq
from tests.stack import ROOT

TABLES = ("checkout_sessions", "session_tasks", "maintenance_runs", "daily_counts")

# What is tried with sessions and tasks of bob's, by whoever may act for ann alone, or for nobody in particular.
READS_CART = "SELECT data FROM checkout_sessions"
READS_REQUEST = "SELECT payload FROM session_tasks"
ADDS_SESSION = """INSERT INTO checkout_sessions (id, user_id, status, package, origin, line_id, line_position,
    line_began_at, expires_at)
    VALUES ('{new}', 'eve', 'active', 'gold', 'created', '{new}', 0, now(), now() + '1 day')"""
ADDS_TASK = """INSERT INTO session_tasks (id, kind, user_id, session_id, payload)
    VALUES ('{new}', 'create', 'eve', '{new}', '{{}}')"""
ADDS_OUTCOME = """INSERT INTO session_tasks (id, kind, user_id, session_id, payload, state, finished_at,
    result_session_id) VALUES ('{new}', 'create', 'eve', '{new}', '{{}}', 'SUCCESS', now(), '{new}')"""
MOVES = "UPDATE checkout_sessions SET step = 'stolen' WHERE id = '{session}'"
TOUCHES_ID = "UPDATE checkout_sessions SET id = id WHERE id = '{session}'"
GIVES_AWAY = "UPDATE checkout_sessions SET user_id = 'eve' WHERE id = '{session}'"
PAYS = """UPDATE checkout_sessions SET status = 'completed', completed_at = now(), payment_reference = 'free'
    WHERE id = '{session}'"""
PROLONGS = "UPDATE checkout_sessions SET expires_at = 'infinity' WHERE id = '{session}'"
REVIVES = "UPDATE checkout_sessions SET status = 'active' WHERE id = '{session}'"
EXPIRES = "UPDATE checkout_sessions SET status = 'expired' WHERE id = '{session}'"
DELETES = "DELETE FROM checkout_sessions WHERE id = '{session}'"
DELETES_PAID = "DELETE FROM checkout_sessions WHERE id = '{paid}'"
FINISHES = """UPDATE session_tasks SET state = 'FAILURE', refusal = 'gave_up', finished_at = now(),
    result_session_id = session_id WHERE id = '{task}'"""
REWRITES = "UPDATE session_tasks SET payload = '{{}}' WHERE id = '{task}'"
TAKES_OVER = "UPDATE session_tasks SET user_id = 'eve' WHERE id = '{task}'"
POSTPONES = "UPDATE session_tasks SET due_at = 'infinity' WHERE id = '{task}'"
DELETES_TASK = "DELETE FROM session_tasks WHERE id = '{task}'"
READS_KEYS = "SELECT idempotency_key FROM session_tasks"
READS_RUNS = "SELECT id FROM maintenance_runs"
ADDS_RUN = "INSERT INTO maintenance_runs (id, task, trigger) VALUES ('{new}', 'maintenance.expire_sessions', 'beat')"
COUNTS = "INSERT INTO daily_counts (day, lines_begun) VALUES ('2026-01-01', 5)"

NOBODY = (
    *(f"{word} {table}" for table in TABLES for word in ("TRUNCATE", "DROP TABLE")),
    *(f"ALTER TABLE {table} {what}" for table in TABLES for what in ("DISABLE ROW LEVEL SECURITY", "ADD x int")),
    "DROP POLICY checkout_own ON checkout_sessions",
    "ALTER POLICY checkout_own ON session_tasks USING (true)",
    "CREATE TABLE mine (id int)",
    "CREATE FUNCTION mine() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "DROP FUNCTION set_updated_at() CASCADE",
    "CREATE INDEX mine ON checkout_sessions (step)",
    "CREATE TRIGGER mine BEFORE UPDATE ON session_tasks FOR EACH ROW EXECUTE FUNCTION set_updated_at()",
    "ALTER TABLE checkout_sessions OWNER TO checkout_worker",
    "CREATE ROLE mine",
    "SELECT undo FROM checkout_sessions_undo",
    "UPDATE alembic_version SET version_num = '0001'",
    "COPY checkout_sessions TO PROGRAM 'cat'",
    "SELECT nextval('session_tasks_seq_seq')",
    GIVES_AWAY,
    PROLONGS,
    REWRITES,
    TAKES_OVER,
    DELETES_PAID,
)
WRITES = (
    *(ADDS_SESSION, ADDS_TASK, ADDS_OUTCOME, ADDS_RUN, COUNTS, MOVES, PAYS, REVIVES, EXPIRES, DELETES, TOUCHES_ID),
    *(FINISHES, POSTPONES, DELETES_TASK),
)
FORBIDDEN = {
    Role.READER: (*WRITES, READS_RUNS),
    Role.NAVIGATOR: (*(w for w in WRITES if w != MOVES), READS_REQUEST, READS_RUNS),
    Role.ACCEPTOR: (*(w for w in WRITES if w != ADDS_TASK), READS_CART, READS_REQUEST, READS_RUNS),
    Role.WORKER: (ADDS_TASK, ADDS_OUTCOME, ADDS_RUN, COUNTS, MOVES, DELETES, POSTPONES, DELETES_TASK, READS_RUNS),
    Role.MAINTENANCE: (
        *(ADDS_SESSION, ADDS_TASK, ADDS_OUTCOME, MOVES, PAYS, REVIVES, FINISHES),
        *(READS_CART, READS_REQUEST, READS_KEYS),
    ),
    Role.AUDITOR: WRITES,
    Role.OPERATOR: (*(w for w in WRITES if w != ADDS_TASK), READS_CART, READS_RUNS),
}


@pytest.fixture(scope="module")
def rows(shared_url: str) -> dict[str, UUID]:
    """Bob's: a session, one that is paid, and a pending task."""
    session, paid = make_row("bob"), make_row("bob", Status.COMPLETED)
    task = make_task(Kind.RENEW, session.id, user_id="bob", package="gold")
    with psycopg.connect(libpq(shared_url), autocommit=True) as connection:
        add_sessions(connection, session, paid)
        accept(connection, task, idempotency_key="bob's")
    return {"session": session.id, "paid": paid.id, "task": task.id}


def as_role(connection: Connection[Any], role: Role, user_id: str, statement: str) -> list[Any]:
    """What it gives, taken back."""
    with connection.transaction(force_rollback=True):
        connection.execute(f"SET LOCAL ROLE {role}")
        connection.execute("SELECT set_config('checkout.user_id', %s, true)", [user_id])
        cursor = connection.execute(statement)
        return cursor.fetchall() if cursor.description else [cursor.rowcount] * bool(cursor.rowcount)


@pytest.mark.parametrize("role", Role)
def test_what_is_none_of_a_roles_business_is_refused(
    connection: Connection[Any], rows: dict[str, UUID], role: Role
) -> None:
    done = []
    for statement in (*NOBODY, *FORBIDDEN[role]):
        try:
            found = as_role(connection, role, "ann", statement.format(**rows, new=uuid7()))
        except (psycopg.errors.InsufficientPrivilege, psycopg.errors.DependentObjectsStillExist):
            continue  # the latter of DROP, which the owner may
        if found:  # no row was reached
            done.append((statement, found))
    assert done == []


@pytest.mark.parametrize("role", [Role.READER, Role.NAVIGATOR])
def test_a_user_reaches_their_own_rows_and_nobody_is_no_user(
    connection: Connection[Any], rows: dict[str, UUID], role: Role
) -> None:
    nobodys = make_row("", Status.INVALIDATED)  # of an older table
    add_sessions(connection, nobodys)
    asks = "SELECT id FROM checkout_sessions"
    assert {row[0] for row in as_role(connection, role, "bob", asks)} == {rows["session"], rows["paid"]}
    assert as_role(connection, role, "ann", asks) == []
    assert as_role(connection, role, "", asks) == []
    if role is Role.READER:
        assert as_role(connection, role, "bob", "SELECT id FROM session_tasks") == [(rows["task"],)]
        assert as_role(connection, role, "ann", "SELECT id FROM session_tasks") == []
    else:
        assert as_role(connection, role, "bob", MOVES.format(**rows)) == [1]
        assert as_role(connection, role, "ann", MOVES.format(**rows)) == []
    with connection.transaction(force_rollback=True):
        connection.execute(f"SET LOCAL ROLE {role}")  # it was not said who asks, or it was for another statement
        assert connection.execute(asks).fetchall() == []


def test_maintenance_marks_and_deletes_but_never_what_is_completed(
    connection: Connection[Any], rows: dict[str, UUID]
) -> None:
    assert as_role(connection, Role.MAINTENANCE, "", EXPIRES.format(**rows)) == [1]
    assert as_role(connection, Role.MAINTENANCE, "", DELETES.format(**rows)) == [1]
    assert as_role(connection, Role.MAINTENANCE, "", "UPDATE checkout_sessions SET status = 'expired'") != []
    everything = as_role(connection, Role.MAINTENANCE, "", "DELETE FROM checkout_sessions RETURNING id")
    assert (rows["session"],) in everything
    assert (rows["paid"],) not in everything


def test_an_acceptor_locks_what_is_addressed(connection: Connection[Any], rows: dict[str, UUID]) -> None:
    lock = f"SELECT id FROM checkout_sessions WHERE id = '{rows['session']}' FOR KEY SHARE"
    assert as_role(connection, Role.ACCEPTOR, "", lock) == [(rows["session"],)]


def test_a_role_comes_with_the_connection_and_reset_goes_back_to_it(shared_url: str) -> None:
    with psycopg.connect(libpq(shared_url), autocommit=True, options=f"-c role={Role.READER}") as connection:
        connection.execute("RESET ROLE")
        connection.execute("RESET ALL")
        assert connection.execute("SELECT current_user").fetchone() == (Role.READER,)


def test_a_login_without_rights_of_its_own_serves(postgres: Any, shared_url: str, rows: dict[str, UUID]) -> None:
    """A bigger installation's: member of the roles, owner of nothing; not even SET ROLE NONE gives it anything."""
    with psycopg.connect(postgres.superuser_url, autocommit=True) as admin:
        admin.execute("DROP ROLE IF EXISTS shop_api")
        admin.execute("CREATE ROLE shop_api LOGIN NOINHERIT PASSWORD 'shop'")
        admin.execute(f"GRANT {Role.READER}, {Role.ACCEPTOR} TO shop_api")
    where = libpq(shared_url).partition("@")[2]
    url = f"postgresql://shop_api:shop@{where}"
    with psycopg.connect(url, autocommit=True, options=f"-c role={Role.READER}") as connection:
        read = "SELECT id FROM checkout_sessions"
        assert len(as_role(connection, Role.READER, "bob", read)) == 2
        for forbidden in (Role.WORKER, Role.AUDITOR, Role.MAINTENANCE, "checkout"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(f"SET ROLE {forbidden}")
        connection.execute("SET ROLE NONE")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(read)
    with pytest.raises(psycopg.OperationalError, match="permission denied to set role"):
        psycopg.connect(url, options=f"-c role={Role.WORKER}")


def test_each_connection_of_the_product_takes_a_role() -> None:
    """But for the demo's, which turns clocks back, and the migrations'."""
    without = []
    for file in [*ROOT.glob("api/*.py"), *ROOT.glob("workers/*.py")]:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in MAKERS:
                given = {keyword.arg for keyword in node.keywords} | {*map(ast.unparse, node.args)}
                if not any(
                    part == "role" or part.startswith(("Role.", "role", "self._role")) for part in given if part
                ):
                    without.append((file.name, ast.unparse(node)))
    assert without == [("state.py", "async_engine(settings, 'demo', 1)")]


MAKERS = {"sync_engine", "async_engine", "async_connection", "OwnConnection", "Connections"}


def test_every_role_is_in_the_rules_and_in_their_table() -> None:
    page = (ROOT / "docs" / "roles.md").read_text()
    assert [role for role in Role if role not in ACCESS or f"| `{role}` |" not in page] == []
