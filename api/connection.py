"""A connection to Postgres of one's own, for the loops that serve all requests of a process together."""

import asyncio
from collections.abc import Mapping
from typing import Any

from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from db import logs
from db.engine import async_connection
from db.settings import DatabaseSettings


class OwnConnection:
    """Connects when first used, and anew after whatever went wrong. One statement at a time, each a transaction.

    Args:
        settings: names Postgres.
        name: what Postgres shows of it.
    """

    def __init__(self, settings: DatabaseSettings, name: str) -> None:
        self._settings = settings
        self._name = name
        self._connection: AsyncConnection[TupleRow] | None = None

    async def fetch(self, statement: str, parameters: Mapping[str, Any], seconds: float) -> list[TupleRow]:
        """Execute one statement.

        Raises:
            TimeoutError: it took longer than `seconds`.
            psycopg.Error: as Postgres says.
        """
        try:
            with logs.operation(self._name) as done:
                async with asyncio.timeout(seconds):
                    if self._connection is None or self._connection.closed:
                        self._connection = await async_connection(self._settings, self._name)
                    cursor = await self._connection.execute(statement, parameters, binary=True)
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
