"""The Celery tasks: thin edges, four names over one execution, and the maintenance."""

import os
import socket
from dataclasses import asdict
from typing import Any
from uuid import UUID

import redis
import structlog
from celery import Task
from celery.concurrency.solo import TaskPool
from celery.signals import worker_process_init, worker_ready
from sqlalchemy import Engine

from db import logs
from db.access import Role
from db.engine import sync_engine
from db.garbage import settle
from workers import doorbell
from workers.celery_app import app, settings
from workers.door import Door
from workers.execution import Executor
from workers.maintenance import Maintenance, maintenance_engine
from workers.messages import (
    CHECK_INVARIANTS,
    DELETE_SESSIONS,
    EXPIRE_SESSIONS,
    FINISHED_CHANNEL,
    PURGE_RECORDS,
    REDELIVER_TASKS,
    SESSION_TASKS,
    SESSIONS_QUEUE,
    ids_of,
    pack_ids,
)

log = structlog.get_logger("tasks")


class Process:
    """What the process that executes holds. A pool makes it after the fork: neither engine nor client survives one."""

    engine: Engine
    teller: redis.Redis
    door: Door | None = None  # of a worker without a pool of processes
    executor: Executor
    maintenance: Maintenance

    def begin(self) -> None:
        """Make the connections' pools; each connects when first used."""
        self.engine = sync_engine(settings, "worker", role=Role.WORKER)
        self.teller = teller = redis.Redis.from_url(
            str(settings.redis_url), socket_timeout=0.5, socket_connect_timeout=0.5, protocol=3
        )

        def tell(ids: list[UUID]) -> None:
            try:
                teller.publish(FINISHED_CHANNEL, pack_ids(ids))
            except redis.RedisError as error:
                log.warning("finished tasks not told, the API looks itself", tasks=len(ids), error=repr(error))

        def unheard() -> int:
            try:
                return int(teller.llen(SESSIONS_QUEUE))
            except redis.RedisError:
                return 0

        self.executor = Executor(
            engine=self.engine,
            limits=settings.limits,
            tell=tell,
            max_attempts=settings.max_attempts,
            worker=f"{socket.gethostname()}:{os.getpid()}",
        )
        self.maintenance = Maintenance(
            engine=maintenance_engine(settings),
            limits=settings.limits,
            settings=settings,
            ring=lambda tasks: doorbell.ring(app, tasks),
            send=lambda name, args: doorbell.send(app, name, args),
            unheard=unheard,
        )


process = Process()


@worker_process_init.connect
def _begin(**_: Any) -> None:
    process.begin()


@worker_ready.connect
def _begin_to_linger(sender: Any, **_: Any) -> None:
    settle()
    if isinstance(sender.pool, TaskPool):
        process.door = Door(process.teller, SESSIONS_QUEUE, sender)


def execute(self: "Task[Any, Any]", task_ids: Any) -> dict[str, Any]:
    """Execute accepted tasks. A message is untrusted: what is not a list of ids is set aside with a log line."""
    try:
        ids = ids_of(task_ids)
        if ids is None:
            log.error("malformed doorbell set aside", celery_task_id=str(self.request.id))
            return {"malformed": True}
        redelivered = bool((self.request.delivery_info or {}).get("redelivered"))
        summary = _execute(ids, str(self.request.id), redelivered)
        if process.door:
            process.door.linger(_execute)
        return summary
    finally:
        logs.bind()  # what the worker says next is not about this task


def _execute(ids: list[UUID], celery_task_id: str, redelivered: bool) -> dict[str, Any]:
    logs.bind(celery_task_id=celery_task_id)
    return asdict(process.executor.execute(ids, celery_task_id, redelivered))


for name in SESSION_TASKS.values():
    app.task(name=name, bind=True)(execute)


@app.task(name=EXPIRE_SESSIONS)
def expire_sessions(run_id: str | None = None) -> dict[str, Any]:
    """Mark sessions whose time is over."""
    return process.maintenance.expire_sessions(run_id)


@app.task(name=DELETE_SESSIONS)
def delete_sessions(run_id: str | None = None) -> dict[str, Any]:
    """Delete sessions past their retention, but for completed ones."""
    return process.maintenance.delete_sessions(run_id)


@app.task(name=REDELIVER_TASKS)
def redeliver_tasks() -> dict[str, Any]:
    """Ring again for tasks that stayed pending, and for cleanups that stayed undone."""
    return process.maintenance.redeliver_tasks()


@app.task(name=PURGE_RECORDS)
def purge_records() -> dict[str, Any]:
    """Delete records of finished tasks and of maintenance past their retention."""
    return process.maintenance.purge_records()


@app.task(name=CHECK_INVARIANTS)
def check_invariants() -> dict[str, Any]:
    """Check what must hold in the tables."""
    return process.maintenance.check_invariants()
