"""Reads for the API: bounded in time, repeated once where a connection died while it was idle."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

from sqlalchemy import Result
from sqlalchemy.exc import DBAPIError

from api.problems import unavailable
from api.state import State
from db.engine import is_outage
from db.queries import Rows

READ_SECONDS: Final = 1.8  # then the client hears 503: within two seconds, whatever Postgres does


@asynccontextmanager
async def in_time(seconds: float = READ_SECONDS) -> AsyncIterator[None]:
    """What is asked of Postgres in here is answered in time, or not at all.

    Raises:
        Problem: `database_unavailable`.
    """
    try:
        async with asyncio.timeout(seconds):
            yield
    except Exception as error:
        if is_outage(error):
            raise unavailable() from error
        raise


async def read(parts: State, statement: Rows, **parameters: Any) -> Result[*tuple[Any, ...]]:
    """Execute one read.

    Raises:
        Problem: `database_unavailable`.
    """
    async with in_time():
        try:
            return await _execute(parts, statement, parameters)
        except DBAPIError as error:
            if not error.connection_invalidated:
                raise
            return await _execute(parts, statement, parameters)


async def _execute(parts: State, statement: Rows, parameters: dict[str, Any]) -> Result[*tuple[Any, ...]]:
    async with parts.reader.connect() as connection:
        return await connection.execute(statement, parameters)
