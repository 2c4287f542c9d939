"""Compares what clients were told with what the database holds, and has the doctor look at the database."""

from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
from psycopg.rows import namedtuple_row

from db.engine import sync_engine
from db.figures import figures_now
from db.invariants import Bounds, examine
from tests.chaos.record import Record
from workers.settings import WorkerSettings

TASKS = """
SELECT id::text, kind, user_id, state, coalesce(result_session_id, session_id)::text AS session_id, refusal,
    request_id, idempotency_key, session_id::text AS addressed, addressed_status, payload
FROM session_tasks
"""
ENOUGH = 20  # breaches of one sort that are listed


def judge(record: Record, settings: WorkerSettings) -> tuple[list[str], int]:
    """The breaches, and how many tasks were accepted."""
    url = str(settings.database_url).replace("+psycopg", "")
    with psycopg.connect(url, row_factory=namedtuple_row) as connection:
        tasks = connection.execute(TASKS).fetchall()
        sessions = dict(connection.execute("SELECT id::text, payment_reference FROM checkout_sessions").fetchall())
    breaches = [
        *record.breaches,
        *_lost_and_doubled(record, tasks),
        *_changed(record, tasks, sessions),
        *_unpaid(record, tasks),
        *_doctor(settings),
        *_rates(record, tasks, settings),
    ]
    return breaches, len(tasks)


def _lost_and_doubled(record: Record, tasks: list[Any]) -> list[str]:
    """Each task stems from one attempt of a client; each ask has one task at most, and the one it was told."""
    found: list[str] = []
    by_id = {task.id: task for task in tasks}
    made: Counter[int] = Counter()
    for task in tasks:
        asked = record.by_request.get(task.request_id)
        if asked is None:
            found.append(f"task {task.id}: nobody asked for it ({task.request_id})")
            continue
        made[asked.number] += 1
        if (asked.user, asked.kind, asked.key) != (task.user_id, task.kind, task.idempotency_key):
            found.append(f"task {task.id}: is not what was asked for")
        if asked.task_id is None:
            asked.task_id = task.id  # its answer was lost
        if task.state == "PENDING":
            found.append(f"lost: task {task.id} was accepted and is still pending")
    found += [f"doubled: ask {number} became {count} tasks" for number, count in made.items() if count > 1]
    found += [
        f"lost: ask {asked.number} was answered with task {asked.task_id}, which does not exist"
        for asked in record.asks
        if asked.task_id and asked.task_id not in by_id
    ]
    return found


def _changed(record: Record, tasks: list[Any], sessions: dict[str, str]) -> list[str]:
    """What was told is what is."""
    found: list[str] = []
    by_id = {task.id: task for task in tasks}
    for asked in record.asks:
        task = by_id.get(asked.task_id or "")
        if task is None:
            continue
        if asked.told and asked.told != (task.state, task.session_id, task.refusal):
            is_now = (task.state, task.session_id, task.refusal)
            found.append(f"changed: task {task.id} was told as {asked.told} and is {is_now}")
        if asked.began_line not in (None, task.addressed_status is None):
            found.append(f"changed: task {task.id} was told to begin a line: {asked.began_line}")
    for session_id, (reference, _) in record.completed.items():
        if sessions.get(session_id) != reference:
            found.append(f"changed: session {session_id} was told completed with {reference}")
    return found


def _unpaid(record: Record, tasks: list[Any]) -> list[str]:
    """No fault was planted in the code, so no task may be given up."""
    return [f"given up: task {task.id}, a {task.kind}" for task in tasks if task.refusal == "gave_up"]


def _doctor(settings: WorkerSettings) -> list[str]:
    bounds = Bounds(
        limits=settings.limits,
        rows=10_000_000,
        pending=timedelta(0),
        overdue=timedelta(seconds=20),
        undeleted=timedelta(seconds=30),
        statement=timedelta(minutes=2),
    )
    engine = sync_engine(settings, "oracle")
    with engine.begin() as connection:
        found = examine(connection, bounds)
    engine.dispose()
    return [
        f"doctor: {finding.name} is broken ({finding.promise}): {', '.join(finding.broken) or finding.unknown}"
        for finding in found
        if finding.broken or finding.unknown
    ]


def _rates(record: Record, tasks: list[Any], settings: WorkerSettings) -> list[str]:
    """The service's two rates against a recount of what clients asked for."""
    begun = completed = recoveries = recovered = 0
    done = set()
    for task in tasks:
        if task.kind == "recover" and task.state != "PENDING" and task.addressed_status != "active":
            recoveries += 1
            recovered += task.state == "SUCCESS"
        if task.state != "SUCCESS":
            continue
        if task.kind == "create" or (task.kind == "renew" and task.addressed_status is None):
            begun += 1
        if task.kind == "complete":
            done.add(task.session_id)
    completed = len(done)
    engine = sync_engine(settings, "oracle")
    with engine.begin() as connection:
        told = figures_now(connection, (datetime.now(UTC) - timedelta(days=2)).date())
    engine.dispose()
    expected = (completed / begun if begun else None, recovered / recoveries if recoveries else None)
    if (told.completion_rate, told.recovery_success_rate) != expected:
        return [f"rates: {told.completion_rate}, {told.recovery_success_rate} are told, {expected} is true"]
    return []
