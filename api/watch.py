"""Looks at Postgres and Redis for operators: for /metrics and /ops.

Each has a connection of its own and a time limit: a drained pool, a hung Postgres or a hung Redis is what operators are
to see, not what keeps them from seeing. What comes of the tables is the same whichever process looks.
"""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeVar

import redis.asyncio as redis
import structlog
from psycopg.rows import TupleRow

from api.connection import OwnConnection
from api.seen import Broker, Finished, Look, Member, Run, Sample, Tables, wait_of
from api.settings import ApiSettings
from db import vitals
from db.access import Role
from db.engine import async_engine
from db.figures import Figures, figures
from workers.heartbeats import FORGET_SECONDS, KEY
from workers.messages import (
    CHECK_INVARIANTS,
    DELETE_SESSIONS,
    EXPIRE_SESSIONS,
    MAINTENANCE_QUEUE,
    PURGE_RECORDS,
    SESSIONS_QUEUE,
)

log = structlog.get_logger("watch")

SAMPLE_SECONDS: Final = 15.0
SAMPLES: Final = 240  # an hour, for plots
LOOK_SECONDS: Final = 1.0  # looks are that far apart at least, however many ask
PATIENCE_SECONDS: Final = 1.8  # with each of Postgres and Redis; then it counts as down
RATES_DAYS: Final = 30  # days that the two rates look back
FIGURES_SHARE: Final = 100  # counting the four figures takes one part in so many of the time
FIGURES_SECONDS: Final = 5.0  # and they are counted that far apart at least
FIGURES_STATEMENT: Final = "60000"  # milliseconds: on a large database they take long, and nobody waits for them
MEMBERS_LIMIT: Final = 100  # signs of life that are shown, the latest: a fleet gone wild must not flood Prometheus
MAINTENANCE: Final = (EXPIRE_SESSIONS, DELETE_SESSIONS, PURGE_RECORDS, CHECK_INVARIANTS)

T = TypeVar("T")


class Watch:
    """One API process's.

    Args:
        settings: names Postgres and Redis.
    """

    def __init__(self, settings: ApiSettings) -> None:
        self._connection = OwnConnection(settings, "watch", Role.AUDITOR)
        self._engine = async_engine(settings, "figures", size=1, role=Role.AUDITOR, statement_timeout=FIGURES_STATEMENT)
        self._redis = redis.Redis.from_url(
            str(settings.redis_url), socket_timeout=PATIENCE_SECONDS, socket_connect_timeout=PATIENCE_SECONDS
        )
        self._lock = asyncio.Lock()
        self._look: Look | None = None
        self._looked_at = 0.0
        self.finished = Finished()
        self.samples: deque[Sample] = deque(maxlen=SAMPLES)
        self._figures: Figures | None = None
        self._figures_at = self._figures_due = 0.0
        self._counting: asyncio.Task[None] | None = None

    async def look(self) -> Look:
        """Look, unless it was done just now."""
        async with self._lock:
            if self._look is None or time.monotonic() - self._looked_at >= LOOK_SECONDS:
                self._count_figures()
                (postgres, tables), broker = await asyncio.gather(self._postgres(), _or_none(self._broker()))
                if self._figures is None and self._counting and tables:
                    await asyncio.wait({self._counting}, timeout=PATIENCE_SECONDS)
                self._looked_at = time.monotonic()
                self._look = Look(postgres, tables, broker, self._figures, self._looked_at - self._figures_at)
            return self._look

    async def run(self) -> None:
        """Keep the last hour, for ever: who looks at three in the night asks how it was at two."""
        before = self.finished.waits()
        while True:
            look = await self.look()
            now = self.finished.waits()
            figures, tables = look.figures, look.tables
            self.samples.append(
                Sample(
                    at=time.time(),
                    active=figures.active_sessions if figures else None,
                    pending=tables.pending if tables else None,
                    oldest=tables.oldest_pending_seconds if tables else None,
                    rate=(now - before).total() / SAMPLE_SECONDS,
                    wait=wait_of(now - before),
                )
            )
            before = now
            await asyncio.sleep(SAMPLE_SECONDS)

    async def close(self) -> None:
        """Hang up."""
        if self._counting:
            self._counting.cancel()
            await asyncio.wait({self._counting}, timeout=PATIENCE_SECONDS)
        await self._connection.close()
        await self._redis.aclose()
        await self._engine.dispose()

    async def _postgres(self) -> tuple[bool, Tables | None]:
        """Whether it answers at all, and what is in the tables: these may be locked, or missing."""
        answers = await _or_none(self._fetch("SELECT 1", {}))
        return answers is not None, await _or_none(self._tables()) if answers else None

    async def _tables(self) -> Tables:
        limits = {
            "pending_limit": vitals.PENDING_LIMIT,
            "overdue_limit": vitals.OVERDUE_LIMIT,
            "given_up_limit": vitals.GIVEN_UP_LIMIT,
        }
        ((pending, oldest, rung, attempts, overdue, unmarked, given_up, limit, connections),) = await self._fetch(
            vitals.VITALS, limits
        )
        runs = await self._fetch(vitals.MAINTENANCE, {"tasks": list(MAINTENANCE)})
        self.finished.add(await self._fetch(vitals.FINISHED, {"since": self.finished.until, **vitals.SPAN}))
        return Tables(
            pending, oldest, rung, attempts, overdue, unmarked, given_up, limit, connections, [Run(*r) for r in runs]
        )

    async def _fetch(self, statement: str, parameters: dict[str, Any]) -> list[TupleRow]:
        return await self._connection.fetch(statement, parameters, PATIENCE_SECONDS)

    async def _broker(self) -> Broker:
        now = time.time()
        async with asyncio.timeout(PATIENCE_SECONDS), self._redis.pipeline(transaction=False) as pipeline:
            for queue in (SESSIONS_QUEUE, MAINTENANCE_QUEUE):
                pipeline.llen(queue)
            pipeline.zrevrangebyscore(KEY, "+inf", now - FORGET_SECONDS, 0, MEMBERS_LIMIT, withscores=True)
            pipeline.info("memory")
            sessions, maintenance, heard, memory = await pipeline.execute(raise_on_error=False)
        for answer in (sessions, maintenance, heard):
            if isinstance(answer, Exception):
                raise answer
        known = memory if isinstance(memory, dict) else {}  # a hosted Redis may keep it to itself
        return Broker(
            {SESSIONS_QUEUE: sessions, MAINTENANCE_QUEUE: maintenance},
            [_member(member, now - at) for member, at in heard],
            known.get("used_memory"),
            known.get("maxmemory"),
        )

    def _count_figures(self) -> None:
        """In the background: they read all that the rates look back on."""
        if time.monotonic() >= self._figures_due and (self._counting is None or self._counting.done()):
            self._counting = asyncio.create_task(self._counted(), name="figures")

    async def _counted(self) -> None:
        began = time.monotonic()
        since = (datetime.now(UTC) - timedelta(days=RATES_DAYS)).date()
        try:
            async with self._engine.connect() as connection:
                self._figures = await figures(connection, since)
            self._figures_at = began
        except Exception as error:
            log.warning("figures not counted", error=repr(error))
        ended = time.monotonic()
        self._figures_due = ended + max(FIGURES_SECONDS, FIGURES_SHARE * (ended - began))


def _member(member: bytes, seconds: float) -> Member:
    role, queue, name = member.decode(errors="replace").split(" ", 2)
    return Member(role, queue, name, max(0.0, seconds))


async def _or_none(work: Awaitable[T]) -> T | None:
    try:
        return await work
    except Exception as error:
        log.warning("not seen", error=repr(error))
        return None
