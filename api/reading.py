"""Reads for the API: bounded in time, repeated once where a connection died while it was idle."""

import asyncio
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

from sqlalchemy import Result, Select
from sqlalchemy.exc import DBAPIError

from api.problems import unavailable
from api.state import State
from db import history, logs, queries
from db.engine import is_outage
from db.queries import Rows

T = TypeVar("T")

READ_SECONDS: Final = 1.8  # then the client hears 503: within two seconds, whatever Postgres does

# What a statement is called in the log.
_NAMES: Final = {
    id(value): name.lower().replace("_", " ")
    for page in (queries, history)
    for name, value in vars(page).items()
    if isinstance(value, Select)
}

_left: set[asyncio.Task[Any]] = set()  # what nobody waits for any more, until it has given its connection back


async def in_time(work: Coroutine[Any, Any, T], seconds: float = READ_SECONDS) -> T:
    """The result of what is asked of Postgres, if it comes in time.

    What comes too late is left to end by itself, and does so by the statement's time limit. It is never cancelled: a
    connection whose checkout or return is cut off would be lost to the pool.

    Raises:
        Problem: `database_unavailable`.
    """
    task = asyncio.create_task(work)
    done, _ = await asyncio.wait({task}, timeout=seconds)
    if not done:
        _left.add(task)
        task.add_done_callback(_forget)
        raise unavailable()
    try:
        return task.result()
    except Exception as error:
        if is_outage(error):
            raise unavailable() from error
        raise


def _forget(task: asyncio.Task[Any]) -> None:
    _left.discard(task)
    if not task.cancelled():
        task.exception()  # nobody else asks for it


async def read(parts: State, statement: Rows, **parameters: Any) -> Result[*tuple[Any, ...]]:
    """Execute one read.

    Raises:
        Problem: `database_unavailable`.
    """
    return await in_time(_twice(parts, statement, parameters))


async def _twice(parts: State, statement: Rows, parameters: dict[str, Any]) -> Result[*tuple[Any, ...]]:
    try:
        return await _execute(parts, statement, parameters)
    except DBAPIError as error:
        if not error.connection_invalidated:
            raise
        return await _execute(parts, statement, parameters)


async def _execute(parts: State, statement: Rows, parameters: dict[str, Any]) -> Result[*tuple[Any, ...]]:
    with logs.operation(_NAMES.get(id(statement), "read")) as done:
        async with parts.reader.connect() as connection:
            result = await connection.execute(statement, parameters)
            done.rows = result.rowcount
            return result
