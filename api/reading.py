"""Reads for the API: as who asks, and bounded in time."""

import asyncio
from collections.abc import Coroutine
from functools import cache
from typing import Any, Final, TypeVar

from sqlalchemy import Select

from api.auth import Principal
from api.problems import unavailable
from api.state import State
from db import history, queries
from db.engine import driver_sql, is_outage
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


async def read(parts: State, principal: Principal, statement: Rows, **parameters: Any) -> list[Any]:
    """Execute one read as who asks: a shopper reaches their own rows whatever the statement says, a service all.

    Returns:
        Its rows, which know their columns' names.

    Raises:
        Problem: `database_unavailable`.
    """
    if principal.service:
        reading, (text, constants) = parts.auditor, _as_service(statement)
    else:
        reading, (text, constants) = parts.reader, _as_shopper(statement)
        parameters["reader"] = principal.user_id
    return await in_time(reading.fetch(_NAMES[id(statement)], text, {**constants, **parameters}, READ_SECONDS))


@cache
def _as_service(statement: Rows) -> tuple[str, dict[str, Any]]:
    return driver_sql(statement)


@cache
def _as_shopper(statement: Rows) -> tuple[str, dict[str, Any]]:
    return driver_sql(queries.as_reader(statement))
