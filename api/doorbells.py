"""Rings for what is committed: one LPUSH for all that is due, on the event loop, best effort."""

import asyncio
from typing import Any, Final
from uuid import UUID

import redis.asyncio as redis
import structlog
from celery import Celery

from api.measurements import DOORBELLS_LOST
from db.lifecycle import Kind
from workers.envelope import envelope
from workers.messages import BATCH_LIMIT, MAINTENANCE_QUEUE, SESSION_TASKS, SESSIONS_QUEUE

log = structlog.get_logger("doorbells")

RING_SECONDS: Final = 1.0  # then the redelivery sweep rings instead
DUE_LIMIT: Final = 20_000  # ids kept while Redis is slow; the sweep rings for the rest


class Doorbells:
    """Rings from a task of its own: a publisher thread would fight the event loop for the interpreter.

    Args:
        app: makes the messages.
        redis_url: the broker.
    """

    def __init__(self, app: Celery, redis_url: str) -> None:
        self._app = app
        self._redis = redis.Redis.from_url(
            redis_url, socket_timeout=RING_SECONDS, socket_connect_timeout=RING_SECONDS, socket_keepalive=True
        )
        self._due: dict[Kind, list[UUID]] = {}
        self._count = 0
        self._wake = asyncio.Event()

    def ring(self, tasks: list[tuple[UUID, Kind]]) -> None:
        """Ring soon. What is due together rings together."""
        if not tasks or self._count >= DUE_LIMIT:
            return
        for task_id, kind in tasks:
            self._due.setdefault(kind, []).append(task_id)
        self._count += len(tasks)
        self._wake.set()

    async def run(self) -> None:
        """Ring for ever."""
        while True:
            await self._wake.wait()
            await self.flush()

    async def flush(self) -> None:
        """Ring for all that is due now."""
        self._wake.clear()
        due, self._due, self._count = self._due, {}, 0
        messages = []
        for kind, ids in due.items():
            for start in range(0, len(ids), BATCH_LIMIT):
                some = ids[start : start + BATCH_LIMIT]
                messages.append(envelope(self._app, SESSION_TASKS[kind], [[str(i) for i in some]], SESSIONS_QUEUE))
        if messages:
            await self._push(SESSIONS_QUEUE, messages)

    async def send(self, name: str, args: list[Any]) -> None:
        """Send a maintenance task."""
        await self._push(MAINTENANCE_QUEUE, [envelope(self._app, name, args, MAINTENANCE_QUEUE)])

    async def close(self) -> None:
        """Ring for what is due, then hang up."""
        await self.flush()
        await self._redis.aclose()

    async def _push(self, queue: str, messages: list[bytes]) -> None:
        try:
            async with asyncio.timeout(RING_SECONDS):
                await self._redis.lpush(queue, *messages)
        except (redis.RedisError, OSError, TimeoutError) as error:
            DOORBELLS_LOST.inc(len(messages))
            log.warning("doorbells lost", queue=queue, messages=len(messages), error=repr(error))
