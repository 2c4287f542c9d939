"""Let each process reach what it needs: roles of least privilege, row-level security.

- The roles belong to the whole server, so that several databases share them: made where they are missing, granted to
  the login that migrates, and left where they are by `downgrade`. Without rights, as a downgrade leaves them, they can
  do nothing; `DROP ROLE` removes them once no database names them.
- `anon`, `authenticated` (Supabase's, who reach tables over HTTP) and PUBLIC lose what default privileges gave them on
  these tables. Of an older table with row-level security, `authenticated` may go on to read what its policies show.
- An older table without row-level security gets it; whoever had rights on it sees what they saw.
- An older restrictive policy for everybody is not for our roles.

The statements that undo this are noted in `checkout_sessions_undo`, in a column of their own. The tables' owner is not
bound by policies (no FORCE): migrations and pg_dump, which refuses to dump a part of a table, work as they did.

Revision ID: 0002
Revises: 0001
"""

import json
import logging
import re

from alembic import op
from alembic.util import CommandError
from psycopg.errors import InsufficientPrivilege
from sqlalchemy import Connection, text
from sqlalchemy.exc import ProgrammingError

from db.migrations.takeover.older import policies
from db.migrations.takeover.steps import Steps, go_back, run
from db.migrations.takeover.values import quoted

log = logging.getLogger("db.migrations")

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

ROLES = [
    f"checkout_{name}" for name in ("reader", "navigator", "acceptor", "worker", "maintenance", "auditor", "operator")
]
TABLES = ("checkout_sessions", "session_tasks", "maintenance_runs", "daily_counts")
ALL_TABLES = (*TABLES, "checkout_sessions_undo", "alembic_version")
OUTSIDERS = ("anon", "authenticated", "PUBLIC")

# Another database may do the same at the same time: whoever loses that race finds what the other one made.
ROLE = """
DO $$
DECLARE tries int := 0;
BEGIN
    LOOP
        BEGIN
            IF to_regrole('{role}') IS NULL THEN
                CREATE ROLE {role} NOLOGIN;
            END IF;
            IF NOT pg_has_role(CURRENT_USER, '{role}', '{membership}') THEN
                GRANT {role} TO CURRENT_USER {options};
            END IF;
            EXIT;
        EXCEPTION WHEN duplicate_object OR unique_violation OR internal_error THEN
            tries := tries + 1;
            IF tries > 9 THEN RAISE; END IF;
        END;
    END LOOP;
END $$
"""

RIGHTS = """
SELECT CASE grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee)) END AS grantee,
    string_agg(privilege_type || column_list, ', ') AS privileges, is_grantable
FROM (
    SELECT 0 AS place, '' AS column_list, acl.*
    FROM pg_class, aclexplode(relacl) WITH ORDINALITY AS acl (grantor, grantee, privilege_type, is_grantable, n)
    WHERE pg_class.oid = to_regclass(:name) AND acl.grantee <> relowner
    UNION ALL
    SELECT attnum, ' (' || quote_ident(attname) || ')', acl.*
    FROM pg_attribute, aclexplode(attacl) WITH ORDINALITY AS acl (grantor, grantee, privilege_type, is_grantable, n)
    WHERE attrelid = to_regclass(:name) AND NOT attisdropped
) AS rights
GROUP BY place, grantee, is_grantable ORDER BY place, min(n)
"""

ACCESS = """
GRANT SELECT ON checkout_sessions, session_tasks TO checkout_reader;

GRANT SELECT, UPDATE (step, data) ON checkout_sessions TO checkout_navigator;

GRANT SELECT (id), UPDATE (id) ON checkout_sessions TO checkout_acceptor;
GRANT INSERT (id, kind, user_id, session_id, payload, idempotency_key, request_hash, request_id, due_at),
    SELECT (id, user_id, session_id, idempotency_key, request_hash, state, accepted_at, result_session_id)
    ON session_tasks TO checkout_acceptor;
GRANT INSERT (id, task, trigger, cleanup_id) ON maintenance_runs TO checkout_acceptor;

GRANT SELECT, INSERT, UPDATE (status, completed_at, payment_reference) ON checkout_sessions TO checkout_worker;
GRANT SELECT, UPDATE (state, attempts, finished_at, result_session_id, refusal, reason, addressed_status, worker,
    celery_task_id) ON session_tasks TO checkout_worker;

GRANT SELECT (ctid, id, user_id, status, line_position, line_began_at, created_at, expires_at), UPDATE (status), DELETE
    ON checkout_sessions TO checkout_maintenance;
GRANT SELECT (id, kind, user_id, state, due_at, rings, finished_at, addressed_status), UPDATE (rings, due_at), DELETE
    ON session_tasks TO checkout_maintenance;
GRANT SELECT, INSERT, UPDATE, DELETE ON maintenance_runs TO checkout_maintenance;
GRANT SELECT, INSERT, UPDATE ON daily_counts TO checkout_maintenance;

GRANT SELECT ON checkout_sessions, session_tasks, maintenance_runs, daily_counts TO checkout_auditor;

GRANT SELECT, INSERT (id, kind, user_id, session_id, payload, idempotency_key, request_hash, request_id, accepted_at)
    ON session_tasks TO checkout_operator;

CREATE POLICY checkout_granted ON checkout_sessions TO checkout_reader, checkout_navigator, checkout_acceptor,
    checkout_worker, checkout_maintenance, checkout_auditor USING (true);
CREATE POLICY checkout_granted ON session_tasks TO checkout_reader, checkout_acceptor, checkout_worker,
    checkout_maintenance, checkout_auditor, checkout_operator USING (true);
CREATE POLICY checkout_granted ON maintenance_runs TO checkout_acceptor, checkout_maintenance, checkout_auditor
    USING (true);
CREATE POLICY checkout_granted ON daily_counts TO checkout_maintenance, checkout_auditor USING (true);

CREATE POLICY checkout_own ON checkout_sessions AS RESTRICTIVE TO checkout_reader, checkout_navigator
    USING ((user_id = nullif(current_setting('checkout.user_id', true), '')) IS TRUE);
CREATE POLICY checkout_own ON session_tasks AS RESTRICTIVE TO checkout_reader
    USING ((user_id = nullif(current_setting('checkout.user_id', true), '')) IS TRUE);
CREATE POLICY checkout_only_locked ON checkout_sessions AS RESTRICTIVE FOR UPDATE TO checkout_acceptor
    USING (true) WITH CHECK (false);
CREATE POLICY checkout_only_asked ON maintenance_runs AS RESTRICTIVE FOR INSERT TO checkout_acceptor
    WITH CHECK (trigger = 'http');
CREATE POLICY checkout_only_expired ON checkout_sessions AS RESTRICTIVE FOR UPDATE TO checkout_maintenance
    USING (status <> 'completed') WITH CHECK (status = 'expired');
CREATE POLICY checkout_never_completed ON checkout_sessions AS RESTRICTIVE FOR DELETE TO checkout_maintenance
    USING (status <> 'completed');
"""

POLICIES = re.findall(r"CREATE POLICY (\w+) ON (\w+)", ACCESS)


def upgrade() -> None:
    """Make the roles, close the tables, and let each role in where it belongs."""
    connection = op.get_bind()
    steps = Steps(connection)
    _make_roles(connection)
    schema = quoted(connection.scalar(text("SELECT current_schema()")) or "")
    for role in ROLES:
        if not connection.scalar(text("SELECT has_schema_privilege(:role, current_schema(), 'USAGE')"), {"role": role}):
            steps.do(f"GRANT USAGE ON SCHEMA {schema} TO {role}", f"REVOKE USAGE ON SCHEMA {schema} FROM {role}")
    is_older = connection.scalar(text("SELECT kept <> '{}' FROM checkout_sessions_undo"))
    was_open = not _has_policies(connection, "checkout_sessions")
    for table in ALL_TABLES:
        _shut_out(steps, f"TABLE {table}", may_read=is_older and not was_open and table == "checkout_sessions")
        if not _has_policies(connection, table):
            there, back = (f"ALTER TABLE {table} {word} ROW LEVEL SECURITY" for word in ("ENABLE", "DISABLE"))
            steps.do(there, back)
    _shut_out(steps, "SEQUENCE session_tasks_seq_seq")
    if is_older and was_open:
        _keep_others_in(steps)
    _except_ours(steps)
    steps.later(f"REVOKE ALL ON {', '.join(TABLES)} FROM {', '.join(ROLES)}")
    for name, table in POLICIES:
        steps.later(f"DROP POLICY {name} ON {table}")
    steps.do(ACCESS)
    run(connection, "ALTER TABLE checkout_sessions_undo ADD COLUMN access jsonb")
    connection.execute(
        text("UPDATE checkout_sessions_undo SET access = cast(:undo AS jsonb)"), {"undo": json.dumps(steps.undo)}
    )


def downgrade() -> None:
    """Walk the way back that the record tells. The roles stay, without rights here."""
    connection = op.get_bind()
    run(connection, f"LOCK TABLE {', '.join(TABLES)} IN ACCESS EXCLUSIVE MODE")
    go_back(connection, connection.scalar(text("SELECT access FROM checkout_sessions_undo")))
    run(connection, "ALTER TABLE checkout_sessions_undo DROP COLUMN access")


def _make_roles(connection: Connection) -> None:
    """Those that are missing.

    Raises:
        CommandError: the login may not; it names what an administrator has to run.
    """
    login = quoted(connection.scalar(text("SELECT current_user")) or "")
    knows_options = connection.scalar(text("SELECT current_setting('server_version_num')::int >= 160000"))
    words = ("SET", "WITH INHERIT FALSE, SET TRUE") if knows_options else ("MEMBER", "")
    patience = connection.scalar(text("SELECT current_setting('lock_timeout')"))
    run(connection, "SET LOCAL lock_timeout = '60s'")  # for another database's migration, which makes them just now
    try:
        for role in ROLES:
            run(connection, ROLE.format(role=role, membership=words[0], options=words[1]))
    except ProgrammingError as error:
        if not isinstance(error.orig, InsufficientPrivilege):
            raise
        raise CommandError(
            "the login may neither make nor take the roles; let an administrator run `"
            + " ".join(f"CREATE ROLE {role} NOLOGIN;" for role in ROLES)
            + f" GRANT {', '.join(ROLES)} TO {login}`"
        ) from error
    run(connection, f"SET LOCAL lock_timeout = '{patience}'")


def _has_policies(connection: Connection, table: str) -> bool:
    query = text("SELECT relrowsecurity FROM pg_class WHERE oid = to_regclass(:name)")
    return bool(connection.scalar(query, {"name": table}))


def _rights(connection: Connection, name: str) -> list[tuple[str, str, bool]]:
    """Grantee, privileges, whether they may pass them on; in the order of the catalog."""
    return [(row[0], row[1], row[2]) for row in connection.execute(text(RIGHTS), {"name": name})]


def _shut_out(steps: Steps, thing: str, may_read: bool = False) -> None:
    """Take the outsiders' rights; the way back gives all rights in their order again, so that a dump says the same."""
    rights = _rights(steps.connection, thing.split()[1])
    outside = sorted({grantee for grantee, _, _ in rights} & {*OUTSIDERS})
    if not outside:
        return
    log.warning("%s lose their rights on %s.", ", ".join(outside), thing.split()[1])
    for grantee, privileges, grantable in reversed(rights):
        option = " WITH GRANT OPTION" if grantable else ""
        steps.later(f"GRANT {privileges} ON {thing} TO {grantee}{option}")
    steps.later(f"REVOKE ALL ON {thing} FROM {', '.join(sorted({grantee for grantee, _, _ in rights}))}")
    steps.do(f"REVOKE ALL ON {thing} FROM {', '.join(outside)}")
    if may_read and any(grantee == "authenticated" and "SELECT" in granted for grantee, granted, _ in rights):
        steps.do(f"GRANT SELECT ON {thing} TO authenticated")


def _keep_others_in(steps: Steps) -> None:
    """Who had rights on an open table sees and changes what they did."""
    others = sorted({grantee for grantee, _, _ in _rights(steps.connection, "checkout_sessions")} - {*OUTSIDERS})
    if others:
        steps.do(
            f"CREATE POLICY older_rights ON checkout_sessions TO {', '.join(others)} USING (true)",
            "DROP POLICY older_rights ON checkout_sessions",
        )


def _except_ours(steps: Steps) -> None:
    """An older restrictive policy for everybody would bind our roles, too."""
    ours = f"CURRENT_USER = ANY ('{{{','.join(ROLES)}}}'::name[])"
    for policy in policies(steps.connection):
        if not policy.permissive and policy.roles == "PUBLIC":
            clauses = {"USING": policy.using, "WITH CHECK": policy.check}
            alter = f"ALTER POLICY {quoted(policy.name)} ON checkout_sessions "
            there = " ".join(f"{word} ({ours} OR ({rule}))" for word, rule in clauses.items() if rule)
            back = " ".join(f"{word} ({rule})" for word, rule in clauses.items() if rule)
            steps.do(alter + there, alter + back)
