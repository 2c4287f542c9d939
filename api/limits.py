"""Bounds on what one user, and all together, may ask for."""

import asyncio
from typing import Final

import structlog
from limits import RateLimitItemPerSecond
from limits.storage import MemoryStorage
from limits.strategies import FixedWindowRateLimiter
from sqlalchemy.ext.asyncio import AsyncEngine

from api.problems import Problem
from db import queries

log = structlog.get_logger("limits")

BODY_LIMIT: Final = 65_536  # bytes of a request, and of a session's data
WAIT_LIMIT: Final = 30  # seconds of a long poll
BACKLOG_LOOK_SECONDS: Final = 1.0


class Rates:
    """Requests a second and user, in this process.

    Args:
        per_second: 0 turns it off.
    """

    def __init__(self, per_second: int) -> None:
        self._item = RateLimitItemPerSecond(per_second) if per_second else None
        self._limiter = FixedWindowRateLimiter(MemoryStorage())

    def count(self, user_id: str) -> None:
        """Count one request.

        Raises:
            Problem: `rate_limited`.
        """
        if self._item and not self._limiter.hit(self._item, user_id):
            raise Problem("rate_limited", headers={"Retry-After": "1"})


class Backlog:
    """Sheds load before Postgres or the workers suffer: no more is accepted while too much is pending."""

    def __init__(self, engine: AsyncEngine, limit: int) -> None:
        self._engine = engine
        self._limit = limit
        self.pending = 0

    def check(self) -> None:
        """Refuse while the backlog is full.

        Raises:
            Problem: `backlog_full`.
        """
        if self.pending >= self._limit:
            raise Problem("backlog_full", headers={"Retry-After": "5"})

    def accepted(self) -> None:
        """Count one until the next look."""
        self.pending += 1

    async def watch(self) -> None:
        """Count what is pending, for ever."""
        while True:
            try:
                async with asyncio.timeout(2), self._engine.connect() as connection:
                    self.pending = (
                        await connection.execute(queries.PENDING_UP_TO, {"limit": self._limit})
                    ).scalar_one()
            except Exception as error:
                log.warning("backlog not counted", error=repr(error))
            await asyncio.sleep(BACKLOG_LOOK_SECONDS)
