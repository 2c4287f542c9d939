"""What happened to a session: its line and what was asked of it, told as one timeline, as far as it is on record.

A change of a session and the outcome of the task that made it share their transaction, so its clock: by that the task
is found which ended a session. Records of tasks and of sweeps are purged after `TASK_RETENTION_SECONDS`; steps gone
through are not kept at all, only logged.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import ARRAY, TIMESTAMP, Interval, Text, bindparam, func, literal_column, select, text
from sqlalchemy.dialects.postgresql import UUID as PG_UUID

from db.lifecycle import Kind, Refusal, Status, TaskState
from db.models import REFUSED_PAYMENT, MaintenanceRun, SessionTask
from db.queries import Rows, SessionView

ORDER: Final = ("accepted", "done", "refused", "given up", "expired", "marked", "invalidated", "began", "completed")


@dataclass(frozen=True, slots=True)
class Asked:
    """A request and what became of it. `rings` and `attempts` count its deliveries and its suspect executions."""

    id: UUID
    seq: int
    kind: Kind
    user_id: str
    state: TaskState
    session_id: UUID
    result_session_id: UUID | None
    accepted_at: datetime
    finished_at: datetime | None
    refusal: Refusal | None
    reason: str | None
    request_id: str | None
    rings: int
    attempts: int
    worker: str | None
    celery_task_id: str | None


@dataclass(frozen=True, slots=True)
class Sweep:
    """The run of the expiry sweep during which something was marked."""

    at: datetime
    trigger: str
    began_at: datetime


@dataclass(frozen=True, slots=True)
class Moment:
    """One event of a timeline; `event` is one of `ORDER`."""

    at: datetime
    event: str
    session_id: UUID
    task_id: UUID | None
    detail: str


_ASKED = tuple(getattr(SessionTask, name) for name in Asked.__slots__)
_TIMES = bindparam("times", type_=ARRAY(TIMESTAMP(timezone=True)))


def _among(column: Any, name: str) -> Any:
    return column == func.any(bindparam(name, type_=ARRAY(PG_UUID(as_uuid=True))))


# What was asked of sessions, latest accepted first; of one user alone, if one is named.
NEWEST_ASKED: Rows = (
    select(*_ASKED)
    .where(
        _among(SessionTask.session_id, "session_ids"),
        SessionTask.user_id == func.coalesce(bindparam("user_id", type_=Text), SessionTask.user_id),
    )
    .order_by(SessionTask.seq.desc())
    .limit(bindparam("limit"))
)

# What a user's tasks did in the transactions of these times.
DONE_AT: Rows = select(*_ASKED).where(
    SessionTask.finished_at == func.any(_TIMES),
    text(f"state <> 'PENDING' AND NOT ({REFUSED_PAYMENT})"),  # in words of the index that it reads
    SessionTask.user_id == bindparam("user_id"),
)

_AT = func.unnest(_TIMES).table_valued("at").render_derived()
_LOOK_BACK = literal_column("interval '1 hour'", Interval)  # a sweep ends much sooner
_RUN = (
    select(MaintenanceRun.trigger, MaintenanceRun.began_at)
    .where(
        MaintenanceRun.task == bindparam("task"),
        MaintenanceRun.requested_at.between(_AT.c.at - _LOOK_BACK, _AT.c.at),
        MaintenanceRun.began_at <= _AT.c.at,
        func.coalesce(MaintenanceRun.finished_at, func.now()) >= _AT.c.at,
    )
    .order_by(MaintenanceRun.requested_at.desc())
    .limit(1)
    .lateral("run")
)

# Which run of a sweep was under way at these times.
SWEPT_AT: Rows = select(_AT.c.at, _RUN.c.trigger, _RUN.c.began_at).join_from(_AT, _RUN, literal_column("true"))

# One task, by its id.
ASKED_BY_ID: Rows = select(*_ASKED).where(SessionTask.id == bindparam("task_id"))


def asked_of(row: Sequence[Any]) -> Asked:
    """One row of the statements on tasks."""
    task_id, seq, kind, user_id, state, session_id, result, accepted, finished, refusal, *rest = row
    refused = Refusal(refusal) if refusal else None
    outcome = (TaskState(state), session_id, result, accepted, finished, refused)
    return Asked(task_id, seq, Kind(kind), user_id, *outcome, *rest)


def ended_at(line: Iterable[SessionView]) -> list[datetime]:
    """When members of a line were last written, of those that were ended by something."""
    return [session.updated_at for session in line if session.status in {Status.INVALIDATED, Status.EXPIRED}]


def timeline(
    line: Sequence[SessionView], asked: Iterable[Asked], done: Iterable[Asked], swept: Iterable[Sweep]
) -> list[Moment]:
    """All that is known, in order.

    Args:
        line: members of a line.
        asked: what was asked of them.
        done: their user's tasks that finished when a member was ended (`DONE_AT` of `ended_at`).
        swept: the sweeps that ran then (`SWEPT_AT`).
    """
    tasks = {task.id: task for task in (*asked, *done)}
    sweeps = {sweep.at: sweep for sweep in swept}
    moments = [moment for task in asked for moment in _of_task(task)]
    for session in line:
        moments += _of_session(session, sorted(tasks.values(), key=lambda t: t.seq), line, sweeps)
    return sorted(moments, key=lambda m: (m.at, ORDER.index(m.event)))


def _of_task(task: Asked) -> Iterator[Moment]:
    rung = f", rung {task.rings} times" if task.rings > 1 else ""
    yield Moment(task.accepted_at, "accepted", task.session_id, task.id, f"{task.kind} by {task.user_id}")
    if task.finished_at is None:
        return
    waited = f"after {max(0, round((task.finished_at - task.accepted_at).total_seconds() * 1000))} ms{rung}"
    why = f": {task.reason}" if task.reason else ""
    event = {None: "done", Refusal.GAVE_UP: "given up"}.get(task.refusal, "refused")
    refusal = f" {task.refusal}" if event == "refused" else ""
    session_id = task.result_session_id or task.session_id
    yield Moment(task.finished_at, event, session_id, task.id, f"{task.kind}{refusal}{why} {waited}")


def _of_session(
    session: SessionView, tasks: list[Asked], line: Sequence[SessionView], sweeps: dict[datetime, Sweep]
) -> Iterator[Moment]:
    maker = next((t for t in tasks if t.finished_at == session.created_at and t.result_session_id == session.id), None)
    made = f"{session.origin}: {session.package}{f', step {session.step}' if session.step else ''}"
    yield Moment(session.created_at, "began", session.id, maker.id if maker else None, made)
    ended = [t for t in tasks if t.finished_at == session.updated_at and t.refusal is None]
    match session.status:
        case Status.COMPLETED:
            assert session.completed_at
            by = next((t for t in ended if t.kind is Kind.COMPLETE and t.result_session_id == session.id), None)
            paid = f"paid by {session.payment_reference}"
            yield Moment(session.completed_at, "completed", session.id, by.id if by else None, paid)
        case Status.INVALIDATED:
            yield _invalidated(session, maker, ended, {other.id for other in line})
        case Status.EXPIRED:
            yield Moment(session.expires_at, "expired", session.id, None, "its time was over")
            if session.updated_at >= session.expires_at:
                yield _marked(session, tasks, sweeps)
        case Status.ACTIVE:
            pass


def _invalidated(session: SessionView, maker: Asked | None, ended: list[Asked], line: set[UUID]) -> Moment:
    """The first task of that transaction, after the one that made the session, which may end another's session."""
    after = maker.seq if maker and maker.finished_at == session.updated_at else -1
    for task in ended:
        if task.seq <= after or task.result_session_id == session.id:
            continue
        if task.kind is Kind.COMPLETE and task.result_session_id in line:
            why = "an older session of its line was paid for"
        elif task.kind is Kind.RENEW:
            why = "a renewal took its place" if task.result_session_id in line else "another line was renewed"
        elif task.kind is Kind.CREATE:
            why = "a newer create took its place"
        else:
            continue
        return Moment(session.updated_at, "invalidated", session.id, task.id, why)
    return Moment(session.updated_at, "invalidated", session.id, None, "why is not on record any more")


def _marked(session: SessionView, tasks: list[Asked], sweeps: dict[datetime, Sweep]) -> Moment:
    at = session.updated_at
    if task := next((t for t in tasks if t.finished_at == at), None):
        return Moment(at, "marked", session.id, task.id, f"by the {task.kind} that came upon it")
    if sweep := sweeps.get(at):
        return Moment(at, "marked", session.id, None, f"by a sweep (asked for by {sweep.trigger})")
    return Moment(at, "marked", session.id, None, "by what is not on record any more")
