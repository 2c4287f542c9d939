"""Bounds on what one user, and all together, may ask for."""

import asyncio
import time
from typing import Final

import structlog

from api.connection import Connections
from api.problems import Problem
from db import queries
from db.engine import driver_sql

log = structlog.get_logger("limits")

BODY_LIMIT: Final = 65_536  # bytes of a request
HEAD_LIMIT: Final = 32_768  # bytes of a request's headers
WAIT_LIMIT: Final = 30  # seconds of a long poll
BACKLOG_LOOK_SECONDS: Final = 1.0
BACKLOG_SECONDS: Final = 5.0  # for counting it

_PENDING_UP_TO, _PENDING_CONSTANTS = driver_sql(queries.PENDING_UP_TO)


class Rates:
    """Requests of each user in each second, in this process.

    A dictionary that is thrown away with its second costs a third of a microsecond a request; the memory storage of
    the library `limits`, which walks all users' keys a hundred times a second, cost as much as accepting a request.

    Args:
        per_second: 0 turns it off.
    """

    def __init__(self, per_second: int) -> None:
        self._per_second = per_second
        self._second = 0
        self._counts: dict[str, int] = {}

    def count(self, user_id: str) -> None:
        """Count one request.

        Raises:
            Problem: `rate_limited`.
        """
        if not self._per_second:
            return
        second = int(time.monotonic())
        if second != self._second:
            self._second, self._counts = second, {}
        count = self._counts[user_id] = self._counts.get(user_id, 0) + 1
        if count > self._per_second:
            raise Problem("rate_limited")


class Backlog:
    """Sheds load before Postgres or the workers suffer: no more is accepted while too much is pending."""

    def __init__(self, auditor: Connections, limit: int) -> None:
        self._auditor = auditor
        self._limit = limit
        self.pending = 0

    def check(self) -> None:
        """Refuse while the backlog is full.

        Raises:
            Problem: `backlog_full`.
        """
        if self.pending >= self._limit:
            raise Problem("backlog_full")

    def accepted(self) -> None:
        """Count one until the next look."""
        self.pending += 1

    async def watch(self) -> None:
        """Count what is pending, for ever."""
        while True:
            try:
                parameters = {**_PENDING_CONSTANTS, "limit": self._limit}
                ((self.pending,),) = await self._auditor.fetch(
                    "pending up to", _PENDING_UP_TO, parameters, BACKLOG_SECONDS
                )
            except Exception as error:
                log.warning("backlog not counted", error=repr(error))
            await asyncio.sleep(BACKLOG_LOOK_SECONDS)
