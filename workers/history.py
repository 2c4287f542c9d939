"""`make session ID=...`: what happened to this session, or to this task and its session, as a timeline."""

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import Connection

from db import logs, queries
from db.access import Role
from db.engine import is_outage, sync_engine
from db.history import ASKED_BY_ID, DONE_AT, NEWEST_ASKED, SWEPT_AT, Asked, Moment, Sweep, asked_of, ended_at, timeline
from db.queries import SessionView
from workers.messages import EXPIRE_SESSIONS
from workers.settings import WorkerSettings

LIMIT = 1_000  # sessions, and tasks; the newest


@dataclass(frozen=True, slots=True)
class Found:
    """A line, what was asked of it, and what happened when. Without sessions, they are deleted or never were."""

    line: Sequence[SessionView]
    asked: Sequence[Asked]
    moments: Sequence[Moment]


def find(connection: Connection, wanted: UUID) -> Found | None:
    """All that is on record of the session, or of the task and its session."""
    task = connection.execute(ASKED_BY_ID, {"task_id": wanted}).one_or_none()
    addressed = asked_of(task).session_id if task else wanted
    asked = _asked(connection, [addressed])
    # Where the session itself is gone, what came of its tasks may be there.
    results = [one.result_session_id for one in asked if one.result_session_id]
    for session_id in dict.fromkeys([addressed, *results]):
        if rows := connection.execute(queries.NEWEST_OF_LINE, {"session_id": session_id, "limit": LIMIT}).all():
            line = [queries.session_view(row) for row in reversed(rows)]
            asked = _asked(connection, [*dict.fromkeys([addressed, *(session.id for session in line)])])
            break
    else:
        line = []
    if not line and not asked:
        return None
    times = ended_at(line)
    done, swept = [], []
    if times:
        by = {"times": times, "user_id": line[0].user_id}
        done = [asked_of(row) for row in connection.execute(DONE_AT, by)]
        swept = [Sweep(*row) for row in connection.execute(SWEPT_AT, {"times": times, "task": EXPIRE_SESSIONS})]
    return Found(line, asked, timeline(line, asked, done, swept))


def _asked(connection: Connection, session_ids: list[UUID]) -> list[Asked]:
    parameters = {"session_ids": session_ids, "user_id": None, "limit": LIMIT}
    return [asked_of(row) for row in reversed(connection.execute(NEWEST_ASKED, parameters).all())]


def page(found: Found, wanted: UUID) -> str:
    """Sessions and tasks, each with a short name, and what happened, in these names. No cart is shown."""
    sessions = [session.id for session in found.line]
    short = _named("S", [*sessions, *(moment.session_id for moment in found.moments)])
    tasks = _named("T", [*(t.id for t in found.asked), *(m.task_id for m in found.moments if m.task_id)])
    users = dict.fromkeys([*(s.user_id for s in found.line), *(t.user_id for t in found.asked)])
    lines = [f"User {', '.join(users)}", "", "Sessions" if found.line else "Sessions: none (deleted, or not made)"]
    for session in found.line:
        mark = " <" if session.id == wanted else ""
        lines.append(f"  {short[session.id]:4} {session.id}  {session.status:11}  {session.package}{mark}")
    lines += [f"  {name:4} {one}  {'':11}  elsewhere" for one, name in short.items() if one not in sessions]
    lines += ["", "Asked (with the HTTP request; worker and Celery task)"]
    for task in found.asked:
        mark = " <" if task.id == wanted else ""
        where = f"{task.worker} {task.celery_task_id}" if task.worker else "-"
        lines.append(f"  {tasks[task.id]:4} {task.id}  {task.kind:8}  {task.request_id or '-'}  {where}{mark}")
    shown = {task.id for task in found.asked}
    lines += [f"  {name:4} {one}  of another line" for one, name in tasks.items() if one not in shown]
    lines += ["", "What happened (UTC)"]
    for moment in found.moments:
        at = moment.at.strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
        task_name = tasks[moment.task_id] if moment.task_id else ""
        lines.append(f"  {at}  {moment.event:11}  {short[moment.session_id]:4} {task_name:4} {moment.detail}")
    if pending := [tasks[task.id] for task in found.asked if task.finished_at is None]:
        lines.append(f"  {'now':23}  {'pending':11}  {' '.join(pending)}")
    return "\n".join(lines) + "\n"


def _named(letter: str, ids: Iterable[UUID]) -> dict[UUID, str]:
    return {one: f"{letter}{n}" for n, one in enumerate(dict.fromkeys(ids), 1)}


def main(arguments: list[str]) -> None:
    """Print the page of one session or task."""
    logs.configure("WARNING")
    settings = WorkerSettings.load()
    try:
        (wanted,) = map(UUID, arguments)
    except ValueError:
        sys.exit("Name one session or task: `make session ID=...` (its id is in the answer and in each log line).")
    try:
        with sync_engine(settings, "history", role=Role.AUDITOR).connect() as connection:
            found = find(connection, wanted)
    except Exception as error:
        if not is_outage(error):
            raise
        sys.exit("Postgres cannot be reached: is DATABASE_URL right, and the server up?")
    if found is None:
        sys.exit(f"{wanted} is neither a session nor a task on record: deleted, purged, or never accepted.")
    sys.stdout.write(page(found, wanted))


if __name__ == "__main__":
    main(sys.argv[1:])
