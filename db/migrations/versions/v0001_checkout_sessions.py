"""Create everything: sessions with their lines, accepted tasks, maintenance runs, daily counts.

Where a `checkout_sessions` table is there already, that of a shop before this service, it is taken over with its rows,
in place (`db/migrations/takeover`, which belongs to this revision alone):

- A column of the wanted type whose values can stay is kept, renamed if need be (`session_data` becomes `data`). Every
  other older column stays with its data, as `older_...` where its name is wanted. What would refuse new rows (NOT NULL,
  CHECK, UNIQUE, own foreign keys, triggers) is taken off; foreign keys of other tables stay, unless the ids' type
  changes. Policies on `user_id` and `status` are rewritten to read the new columns; views go on to read the older ones.
- `id`: a text that is no UUID becomes `md5(id)::uuid`. `user_id` becomes text; a row without one belongs to nobody: it
  gets `''`, and is invalidated if it was active.
- `status`: case and blanks aside. An unknown word becomes `invalidated`, but `completed` with a `completed_at`: it may
  be an order. Of several active sessions of a user the newest stays active, the others become `invalidated`.
- Times without a zone are UTC. Without `expires_at` a session lasts 24 hours; a completed one without `completed_at`
  was completed when it was created.
- `payment_reference` comes from the column that holds a payment's or a Stripe session's id, of completed sessions only;
  of several with the same one the newest keeps it. Where a completed one has none, the CHECK binds new rows only.
- Each older row is a line of its own.

The statement that undoes a step is noted with it in `checkout_sessions_undo`; `downgrade` walks these back. An older
table gets its columns, types, constraints, indexes, triggers and policies back, and its rows exactly; rows that the new
code has made or changed are brought into its shape, `invalidated` as `expired`. A value that it cannot hold gives way
to one that says nothing, and a constraint that new rows break binds new rows only, or stays away: a warning names each.
Tables that this migration has made are dropped.

The older table is locked and rewritten: a transaction that was open before and reads it only afterwards at REPEATABLE
READ finds it empty, as after any rewrite (PostgreSQL, 13.6).

Revision ID: 0001
Revises:
"""

import json

from alembic import op
from sqlalchemy import text

from db.migrations.takeover.columns import Wanted
from db.migrations.takeover.older import function, read
from db.migrations.takeover.steps import Steps, go_back, run
from db.migrations.takeover.table import Takeover

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

COLUMNS = {
    "id": Wanted("uuid"),
    "user_id": Wanted("text"),
    "status": Wanted("text"),
    "package": Wanted("text"),
    "step": Wanted("text", nullable=True),
    "data": Wanted("jsonb", default="'{}'::jsonb"),
    "origin": Wanted("text"),
    "line_id": Wanted("uuid"),
    "line_position": Wanted("integer"),
    "line_began_at": Wanted("timestamp with time zone"),
    "previous_session_id": Wanted("uuid", nullable=True),
    "payment_reference": Wanted("text", nullable=True),
    "created_at": Wanted("timestamp with time zone", default="now()"),
    "updated_at": Wanted("timestamp with time zone", default="now()"),
    "expires_at": Wanted("timestamp with time zone"),
    "completed_at": Wanted("timestamp with time zone", nullable=True),
}

CONSTRAINTS = {
    "pk_checkout_sessions": "PRIMARY KEY (id)",
    "ck_checkout_sessions_status": "CHECK (status IN ('active', 'completed', 'expired', 'invalidated'))",
    "ck_checkout_sessions_origin": "CHECK (origin IN ('created', 'renewed', 'recovered'))",
    "ck_checkout_sessions_completed_at": "CHECK ((status = 'completed') = (completed_at IS NOT NULL))",
    "ck_checkout_sessions_payment_reference": "CHECK ((status = 'completed') = (payment_reference IS NOT NULL))",
    "ck_checkout_sessions_previous": "CHECK ((line_position = 0) = (previous_session_id IS NULL))",
    "ck_checkout_sessions_line_position": "CHECK ((origin = 'created') = (line_position = 0))",
    "ck_checkout_sessions_expires_at": "CHECK (expires_at > created_at)",
}

INDEXES = """
CREATE UNIQUE INDEX uq_checkout_sessions_active ON checkout_sessions (user_id) WHERE status = 'active';
CREATE UNIQUE INDEX uq_checkout_sessions_line ON checkout_sessions (line_id, line_position DESC);
CREATE UNIQUE INDEX uq_checkout_sessions_line_completed ON checkout_sessions (line_id) WHERE status = 'completed';
CREATE UNIQUE INDEX uq_checkout_sessions_payment_reference ON checkout_sessions (payment_reference)
    WHERE payment_reference IS NOT NULL;
CREATE INDEX ix_checkout_sessions_overdue ON checkout_sessions (expires_at) WHERE status = 'active';
CREATE INDEX ix_checkout_sessions_status_created_at ON checkout_sessions (status, created_at);
CREATE INDEX ix_checkout_sessions_user_id_created_at ON checkout_sessions (user_id, created_at);
CREATE INDEX ix_checkout_sessions_created_at ON checkout_sessions (created_at);
CREATE INDEX ix_checkout_sessions_updated_at ON checkout_sessions (updated_at);
"""

UPDATED_AT_TRIGGER = """
CREATE OR REPLACE FUNCTION set_updated_at() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.updated_at := now();
    RETURN NEW;
END $$;
CREATE OR REPLACE TRIGGER checkout_sessions_updated_at BEFORE UPDATE ON checkout_sessions
    FOR EACH ROW EXECUTE FUNCTION set_updated_at();
"""

OTHER_TABLES = """
CREATE TABLE session_tasks (
    id uuid CONSTRAINT pk_session_tasks PRIMARY KEY,
    seq bigint GENERATED ALWAYS AS IDENTITY,
    kind text NOT NULL,
    user_id text NOT NULL,
    session_id uuid NOT NULL,
    payload jsonb NOT NULL,
    idempotency_key text,
    request_hash text,
    request_id text,
    state text DEFAULT 'PENDING' NOT NULL,
    accepted_at timestamptz DEFAULT now() NOT NULL,
    due_at timestamptz DEFAULT now() NOT NULL,
    rings integer DEFAULT 1 NOT NULL,
    attempts integer DEFAULT 0 NOT NULL,
    finished_at timestamptz,
    result_session_id uuid,
    refusal text,
    reason text,
    addressed_status text,
    worker text,
    celery_task_id text,
    CONSTRAINT ck_session_tasks_kind CHECK (kind IN ('create', 'renew', 'recover', 'complete')),
    CONSTRAINT ck_session_tasks_state CHECK (state IN ('PENDING', 'SUCCESS', 'FAILURE')),
    CONSTRAINT ck_session_tasks_finished_at CHECK ((state = 'PENDING') = (finished_at IS NULL)),
    CONSTRAINT ck_session_tasks_result CHECK ((state = 'PENDING') = (result_session_id IS NULL)),
    CONSTRAINT ck_session_tasks_refusal CHECK ((state = 'FAILURE') = (refusal IS NOT NULL)),
    CONSTRAINT ck_session_tasks_idempotency_key CHECK (char_length(idempotency_key) <= 255),
    CONSTRAINT ck_session_tasks_payload CHECK (jsonb_typeof(payload) = 'object')
);
CREATE INDEX ix_session_tasks_pending ON session_tasks (user_id, seq) WHERE state = 'PENDING';
CREATE INDEX ix_session_tasks_due ON session_tasks (due_at) WHERE finished_at IS NULL;
CREATE UNIQUE INDEX uq_session_tasks_idempotency_key ON session_tasks (user_id, idempotency_key)
    WHERE idempotency_key IS NOT NULL;
CREATE INDEX ix_session_tasks_purgeable ON session_tasks (finished_at)
    WHERE state <> 'PENDING' AND NOT (kind = 'complete' AND state = 'FAILURE');
CREATE INDEX ix_session_tasks_session_id ON session_tasks (session_id);
CREATE INDEX ix_session_tasks_refused_payments ON session_tasks (finished_at)
    WHERE kind = 'complete' AND state = 'FAILURE';
CREATE INDEX ix_session_tasks_given_up ON session_tasks (finished_at) WHERE refusal = 'gave_up';

CREATE TABLE maintenance_runs (
    id uuid CONSTRAINT pk_maintenance_runs PRIMARY KEY,
    task text NOT NULL,
    trigger text NOT NULL,
    cleanup_id uuid,
    requested_at timestamptz DEFAULT now() NOT NULL,
    began_at timestamptz,
    finished_at timestamptz,
    rows bigint DEFAULT 0 NOT NULL,
    error text,
    CONSTRAINT ck_maintenance_runs_trigger CHECK (trigger IN ('beat', 'http', 'command')),
    CONSTRAINT ck_maintenance_runs_finished_at CHECK (finished_at IS NULL OR began_at IS NOT NULL)
);
CREATE INDEX ix_maintenance_runs_task_requested_at ON maintenance_runs (task, requested_at);
CREATE INDEX ix_maintenance_runs_requested_at ON maintenance_runs (requested_at);
CREATE INDEX ix_maintenance_runs_cleanup_id ON maintenance_runs (cleanup_id) WHERE cleanup_id IS NOT NULL;

CREATE TABLE daily_counts (
    day date CONSTRAINT pk_daily_counts PRIMARY KEY,
    lines_begun bigint DEFAULT 0 NOT NULL,
    recoveries_finished bigint DEFAULT 0 NOT NULL,
    recoveries_succeeded bigint DEFAULT 0 NOT NULL
);
"""


# How to go back: an older table's own shape, or none.
RECORD = """
CREATE TABLE checkout_sessions_undo (
    kept text[] NOT NULL,
    undo jsonb NOT NULL,
    made_at timestamptz DEFAULT now() NOT NULL
);
ALTER TABLE checkout_sessions_undo ENABLE ROW LEVEL SECURITY;
"""


def upgrade() -> None:
    """Make the tables, or take over the older one and make the others."""
    connection = op.get_bind()
    steps = Steps(connection)
    older = read(connection)
    takeover = None
    if older is None:
        columns = [f"{name} {wanted.sql}" for name, wanted in COLUMNS.items()]
        constraints = [f"CONSTRAINT {name} {rule}" for name, rule in CONSTRAINTS.items()]
        steps.do(
            f"CREATE TABLE checkout_sessions ({', '.join([*columns, *constraints])})", "DROP TABLE checkout_sessions"
        )
        run(connection, INDEXES)
    else:
        takeover = Takeover(steps, older, COLUMNS, CONSTRAINTS, INDEXES)
        takeover.execute()
    steps.later(function(connection) or "DROP FUNCTION set_updated_at()", "The function set_updated_at() stays")
    steps.do(UPDATED_AT_TRIGGER, "DROP TRIGGER checkout_sessions_updated_at ON checkout_sessions")
    steps.do(OTHER_TABLES, "DROP TABLE daily_counts, maintenance_runs, session_tasks")
    run(connection, RECORD)
    kept = takeover.kept_names("checkout_sessions_updated_at") if takeover else []
    connection.execute(
        text("INSERT INTO checkout_sessions_undo (kept, undo) VALUES (:kept, cast(:undo AS jsonb))"),
        {"kept": kept, "undo": json.dumps(steps.undo)},
    )


def downgrade() -> None:
    """Walk the way back that the record tells."""
    connection = op.get_bind()
    run(connection, "LOCK TABLE checkout_sessions IN ACCESS EXCLUSIVE MODE")
    undo = connection.scalar(text("SELECT undo FROM checkout_sessions_undo"))
    go_back(connection, undo)
    run(connection, "DROP TABLE checkout_sessions_undo")
