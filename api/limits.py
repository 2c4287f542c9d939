"""A bound on what all together may ask for."""

import asyncio
from typing import Final

import structlog

from api.connection import Connections
from api.problems import Problem
from db import queries
from db.engine import driver_sql

log = structlog.get_logger("limits")

BACKLOG_LOOK_SECONDS: Final = 1.0
BACKLOG_SECONDS: Final = 5.0  # for counting it

_PENDING_UP_TO, _PENDING_CONSTANTS = driver_sql(queries.PENDING_UP_TO)


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
