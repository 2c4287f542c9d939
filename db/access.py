"""Who may do what in Postgres: roles of least privilege, which connections take, and row-level security.

docs/roles.md has the table. Grants are for whole tables on the busiest paths: a column's are looked up one by one.
"""

from enum import StrEnum
from typing import Final


class Role(StrEnum):
    """What a connection is for. None of them logs in; the login takes one when it connects."""

    READER = "checkout_reader"  # the API for a shopper: their own rows, and nobody's before it is said whose
    NAVIGATOR = "checkout_navigator"  # PATCH: step and data of a user's own sessions
    ACCEPTOR = "checkout_acceptor"  # adds accepted requests; reads no cart and no outcome but its state
    WORKER = "checkout_worker"  # executes: changes sessions and outcomes, deletes nothing
    MAINTENANCE = "checkout_maintenance"  # expires, deletes, rings again, purges; makes no session, reads no cart
    AUDITOR = "checkout_auditor"  # reads everything, writes nothing: service tokens, results, metrics, the doctor
    OPERATOR = "checkout_operator"  # `make retry`: takes up what was given up


# Says whose rows a reader or navigator reaches, for one statement or transaction. Unset, or empty, is nobody's.
USER_SETTING: Final = "checkout.user_id"

# Beside the models, because the check of the schema and tests share it; the migration has its own copy.
#
# Permissive policies of an older table hold for our roles too, so what narrows a role is RESTRICTIVE. `IS TRUE` keeps
# the planner from looking rows up by their user where the statement says which one it wants.
ACCESS: Final = """
ALTER TABLE checkout_sessions ENABLE ROW LEVEL SECURITY;
ALTER TABLE session_tasks ENABLE ROW LEVEL SECURITY;
ALTER TABLE maintenance_runs ENABLE ROW LEVEL SECURITY;
ALTER TABLE daily_counts ENABLE ROW LEVEL SECURITY;

GRANT SELECT ON checkout_sessions, session_tasks TO checkout_reader;

GRANT SELECT, UPDATE (step, data) ON checkout_sessions TO checkout_navigator;

-- Of sessions it only locks the ids that are addressed, which takes the right to update: a policy forbids it.
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
