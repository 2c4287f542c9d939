"""The tables. Postgres refuses what must not be: CHECKs, partial unique indexes, names that errors can be told by."""

from datetime import date, datetime
from typing import Any, ClassVar
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, Date, Identity, Index, Integer, MetaData, Text, desc, func, text
from sqlalchemy.dialects.postgresql import JSONB, TIMESTAMP
from sqlalchemy.dialects.postgresql import UUID as PG_UUID
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from db.lifecycle import Kind, Origin, Status, TaskState

NOW = func.now()
REFUSED_PAYMENT = "kind = 'complete' AND state = 'FAILURE'"


def _one_of(column: str, values: type[Status] | type[Origin] | type[Kind] | type[TaskState]) -> str:
    return f"{column} IN ({', '.join(repr(str(value)) for value in values)})"


class Base(DeclarativeBase):
    """Names of constraints by convention, so that migrations and error mapping can rely on them."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map: ClassVar = {
        str: Text,
        UUID: PG_UUID(as_uuid=True),
        datetime: TIMESTAMP(timezone=True),
        dict[str, Any]: JSONB,
        date: Date,
        int: BigInteger,
    }


class CheckoutSession(Base):
    """A session and its place in its line. `updated_at` is kept by a trigger."""

    __tablename__ = "checkout_sessions"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    user_id: Mapped[str]
    status: Mapped[str]
    package: Mapped[str]
    step: Mapped[str | None]
    data: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'::jsonb"))
    origin: Mapped[str]
    line_id: Mapped[UUID]
    line_position: Mapped[int] = mapped_column(Integer)
    line_began_at: Mapped[datetime]  # outlives the line's first session: the completion rate counts by day begun
    previous_session_id: Mapped[UUID | None]  # no foreign key: it would make each delete a look-up
    payment_reference: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=NOW)
    updated_at: Mapped[datetime] = mapped_column(server_default=NOW)
    expires_at: Mapped[datetime]
    completed_at: Mapped[datetime | None]

    __table_args__ = (
        CheckConstraint(_one_of("status", Status), "status"),
        CheckConstraint(_one_of("origin", Origin), "origin"),
        CheckConstraint("(status = 'completed') = (completed_at IS NOT NULL)", "completed_at"),
        CheckConstraint("(status = 'completed') = (payment_reference IS NOT NULL)", "payment_reference"),
        CheckConstraint("(line_position = 0) = (previous_session_id IS NULL)", "previous"),
        CheckConstraint("(origin = 'created') = (line_position = 0)", "line_position"),
        CheckConstraint("expires_at > created_at", "expires_at"),
        # One active session per user; validate and `successor_id` read it too.
        Index("uq_checkout_sessions_active", "user_id", unique=True, postgresql_where=text("status = 'active'")),
        # No forks: a line's positions are distinct. Its newest member is the first of this index, read backwards.
        Index("uq_checkout_sessions_line", "line_id", desc("line_position"), unique=True),
        Index(
            "uq_checkout_sessions_line_completed",
            "line_id",
            unique=True,
            postgresql_where=text("status = 'completed'"),
        ),
        Index(
            "uq_checkout_sessions_payment_reference",
            "payment_reference",
            unique=True,
            postgresql_where=text("payment_reference IS NOT NULL"),
        ),
        # What the expiry sweep reads.
        Index("ix_checkout_sessions_overdue", "expires_at", postgresql_where=text("status = 'active'")),
        # What the deletion sweep reads: completed rows stay for ever and must not lie in its way.
        Index("ix_checkout_sessions_status_created_at", "status", "created_at"),
        Index("ix_checkout_sessions_user_id_created_at", "user_id", "created_at"),
        Index("ix_checkout_sessions_created_at", "created_at"),
        Index("ix_checkout_sessions_updated_at", "updated_at"),
    )


class SessionTask(Base):
    """An accepted request: the truth that the doorbells point at."""

    __tablename__ = "session_tasks"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    seq: Mapped[int] = mapped_column(Identity(always=True))  # the order of acceptance
    kind: Mapped[str]
    user_id: Mapped[str]
    session_id: Mapped[UUID]  # the session to be (create) or the one addressed
    payload: Mapped[dict[str, Any]]
    idempotency_key: Mapped[str | None]
    request_hash: Mapped[str | None]  # of kind, path and body, to tell a repeat from another request under its key
    request_id: Mapped[str | None]  # joins the API's log lines with the worker's
    state: Mapped[str] = mapped_column(server_default=text(f"'{TaskState.PENDING}'"))
    accepted_at: Mapped[datetime] = mapped_column(server_default=NOW)
    due_at: Mapped[datetime] = mapped_column(server_default=NOW)  # when its doorbell rings again, if still pending
    rings: Mapped[int] = mapped_column(Integer, server_default=text("1"))  # above one: it was delivered again
    attempts: Mapped[int] = mapped_column(Integer, server_default=text("0"))  # executions that are known to have begun
    finished_at: Mapped[datetime | None]
    result_session_id: Mapped[UUID | None]
    refusal: Mapped[str | None]
    reason: Mapped[str | None]
    addressed_status: Mapped[str | None]
    worker: Mapped[str | None]  # host name and process of the worker that finished it
    celery_task_id: Mapped[str | None]

    __table_args__ = (
        CheckConstraint(_one_of("kind", Kind), "kind"),
        CheckConstraint(_one_of("state", TaskState), "state"),
        CheckConstraint("(state = 'PENDING') = (finished_at IS NULL)", "finished_at"),
        CheckConstraint("(state = 'PENDING') = (result_session_id IS NULL)", "result"),
        CheckConstraint("(state = 'FAILURE') = (refusal IS NOT NULL)", "refusal"),
        CheckConstraint("char_length(idempotency_key) <= 255", "idempotency_key"),
        CheckConstraint("jsonb_typeof(payload) = 'object'", "payload"),
        # A user's pending tasks in order of acceptance: what a worker locks and takes.
        Index("ix_session_tasks_pending", "user_id", "seq", postgresql_where=text("state = 'PENDING'")),
        # What the redelivery sweep reads. Its predicate is said differently, so that no plan for a user's pending tasks
        # reads through all of these instead, as the statistics of an empty backlog would have it.
        Index("ix_session_tasks_due", "due_at", postgresql_where=text("finished_at IS NULL")),
        Index(
            "uq_session_tasks_idempotency_key",
            "user_id",
            "idempotency_key",
            unique=True,
            postgresql_where=text("idempotency_key IS NOT NULL"),
        ),
        # What the purge of records reads. Refused payments stay, to be refunded.
        Index(
            "ix_session_tasks_purgeable",
            "finished_at",
            postgresql_where=text(f"state <> 'PENDING' AND NOT ({REFUSED_PAYMENT})"),
        ),
        Index("ix_session_tasks_refused_payments", "finished_at", postgresql_where=text(REFUSED_PAYMENT)),
        # Faults of ours, for the metric; nearly always empty.
        Index("ix_session_tasks_given_up", "finished_at", postgresql_where=text("refusal = 'gave_up'")),
        # History of a session.
        Index("ix_session_tasks_session_id", "session_id"),
    )


class MaintenanceRun(Base):
    """One run of a maintenance task: what, who asked, when, how long, how many rows."""

    __tablename__ = "maintenance_runs"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    task: Mapped[str]
    trigger: Mapped[str]
    cleanup_id: Mapped[UUID | None]  # what the API answered as the task's id; the runs of one cleanup share it
    requested_at: Mapped[datetime] = mapped_column(server_default=NOW)
    began_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    rows: Mapped[int] = mapped_column(server_default=text("0"))
    error: Mapped[str | None]

    __table_args__ = (
        CheckConstraint("trigger IN ('beat', 'http', 'command')", "trigger"),
        CheckConstraint("finished_at IS NULL OR began_at IS NOT NULL", "finished_at"),
        Index("ix_maintenance_runs_task_requested_at", "task", "requested_at"),
        Index("ix_maintenance_runs_requested_at", "requested_at"),
        Index("ix_maintenance_runs_cleanup_id", "cleanup_id", postgresql_where=text("cleanup_id IS NOT NULL")),
    )


class DailyCount(Base):
    """What the purge has deleted, by day (UTC), so that the rates stay exact."""

    __tablename__ = "daily_counts"

    day: Mapped[date] = mapped_column(primary_key=True)
    lines_begun: Mapped[int] = mapped_column(server_default=text("0"))
    recoveries_finished: Mapped[int] = mapped_column(server_default=text("0"))
    recoveries_succeeded: Mapped[int] = mapped_column(server_default=text("0"))


# The trigger that keeps `updated_at`; beside the models, because migrations and tests share it.
UPDATED_AT_TRIGGER = """
CREATE OR REPLACE FUNCTION set_updated_at() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.updated_at := now();
    RETURN NEW;
END $$;
CREATE OR REPLACE TRIGGER checkout_sessions_updated_at BEFORE UPDATE ON checkout_sessions
    FOR EACH ROW EXECUTE FUNCTION set_updated_at();
"""
