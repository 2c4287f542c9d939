"""Rings for accepted tasks. A doorbell may be lost: the redelivery sweep rings again."""

from collections.abc import Iterable, Sequence
from typing import Any
from uuid import UUID

import structlog
from celery import Celery
from kombu.exceptions import OperationalError

from db.lifecycle import Kind
from workers.messages import BATCH_LIMIT, SESSION_TASKS

log = structlog.get_logger("doorbell")


def ring(app: Celery, tasks: Iterable[tuple[UUID, Kind]]) -> bool:
    """Send one message per kind (and per `BATCH_LIMIT` ids) for tasks that are committed.

    Returns:
        Whether Redis took all of them. False is logged, and is no one's fault but a delay.
    """
    by_kind: dict[Kind, list[str]] = {}
    for task_id, kind in tasks:
        by_kind.setdefault(kind, []).append(str(task_id))
    for kind, ids in by_kind.items():
        for start in range(0, len(ids), BATCH_LIMIT):
            if not send(app, SESSION_TASKS[kind], [ids[start : start + BATCH_LIMIT]]):
                return False
    return True


def send(app: Celery, name: str, args: Sequence[Any]) -> bool:
    """Send one Celery task, best effort."""
    try:
        app.send_task(name, args=args, ignore_result=True)
    except (OperationalError, OSError) as error:
        log.warning("doorbell lost", task=name, error=repr(error))
        return False
    return True
