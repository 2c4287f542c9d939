"""Connections to Postgres of our own: for the loops that serve all requests together, and for each request's reads."""

import asyncio
from collections.abc import Mapping
from typing import Any, Final

import psycopg
from psycopg import AsyncConnection
from psycopg.rows import TupleRow, namedtuple_row

from db import logs
from db.access import Role
from db.engine import async_connection, is_outage
from db.settings import DatabaseSettings

SILENCE_SECONDS: Final = 6.0  # longer than Postgres lets a statement take (db/engine.py)


class OwnConnection:
    """Connects when first used, and anew after whatever went wrong. One statement at a time, each a transaction.

    Args:
        settings: names Postgres.
        name: what Postgres shows of it.
        role: what it may do.
    """

    def __init__(self, settings: DatabaseSettings, name: str, role: Role) -> None:
        self._settings = settings
        self._name = name
        self._role = role
        self._connection: AsyncConnection[TupleRow] | None = None

    @property
    def is_open(self) -> bool:
        """Whether it was connected, and nothing went wrong since as far as is known."""
        return self._connection is not None and not self._connection.closed

    async def fetch(
        self, statement: str, parameters: Mapping[str, Any], seconds: float, operation: str = ""
    ) -> list[Any]:
        """Execute one statement.

        Args:
            statement: as psycopg wants it.
            parameters: all that it names.
            seconds: how long it may take.
            operation: what the log calls it, if not as the connection; its rows know their columns' names.

        Raises:
            TimeoutError: it took longer than `seconds`.
            psycopg.Error: as Postgres says.
        """
        try:
            with logs.operation(operation or self._name) as done:
                async with asyncio.timeout(seconds):
                    if self._connection is None or self._connection.closed:
                        self._connection = await async_connection(self._settings, self._name, self._role)
                    cursor = self._connection.cursor(binary=True)
                    if operation:
                        cursor.row_factory = namedtuple_row
                    await cursor.execute(statement, parameters)
                    rows = await cursor.fetchall()
                    done.rows = len(rows)
                    return rows
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Hang up."""
        connection, self._connection = self._connection, None
        if connection:
            await connection.close()


class Connections:
    """Up to `size` of them, for statements that come one by one; the one used last is used next.

    Args:
        settings: names Postgres.
        role: what they may do.
        size: whoever finds all of them busy waits.
    """

    def __init__(self, settings: DatabaseSettings, role: Role, size: int) -> None:
        self.size = size
        self._free = asyncio.Semaphore(size)
        self._idle = [OwnConnection(settings, role.removeprefix("checkout_"), role) for _ in range(size)]

    @property
    def in_use(self) -> int:
        """How many are."""
        return self.size - len(self._idle)

    async def fetch(self, operation: str, statement: str, parameters: Mapping[str, Any], seconds: float) -> list[Any]:
        """Execute one statement; its rows know their columns' names.

        It ends by Postgres' own time limit. Who has no time for that goes, and leaves it to end: a connection that is
        cut off in a short freeze would have to be made anew. One that died while it was idle is no outage: the
        statement is repeated once, on a new one.

        Args:
            operation: what the log calls it.
            statement: as psycopg wants it.
            parameters: all that it names.
            seconds: how long to wait for a free connection.

        Raises:
            TimeoutError: no connection was free in time, or Postgres was silent.
            psycopg.Error: as Postgres says.
        """
        async with asyncio.timeout(seconds):
            await self._free.acquire()
        connection = self._idle.pop()
        try:
            was_open = connection.is_open
            try:
                return await connection.fetch(statement, parameters, SILENCE_SECONDS, operation)
            except psycopg.Error as error:
                if not was_open or not is_outage(error):
                    raise
                return await connection.fetch(statement, parameters, SILENCE_SECONDS, operation)
        finally:
            self._idle.append(connection)
            self._free.release()

    async def close(self) -> None:
        """Hang up."""
        for connection in self._idle:
            await connection.close()
