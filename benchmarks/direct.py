"""The direct baseline: the API writes the session itself and answers 201 with it.

It writes the log lines that the shop asks for, as the service does: of the creation, and of the database's operation.
One statement, so one transaction and one round trip: it ends the user's older session and inserts the new one.
Prepared, in binary, on a pool of connections in autocommit (POOL_SIZE). Two concurrent creates of one user meet in the
unique index; the loser tries again.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import orjson
from fastapi import Depends, FastAPI, Request, Response
from psycopg import AsyncConnection, AsyncRawCursor
from psycopg.errors import UniqueViolation
from uuid_utils.compat import uuid7

from api import schemas
from api.auth import Authenticated
from api.responses import json
from api.settings import ApiSettings
from api.tasks import user_of
from benchmarks import baseline
from db import logs
from db.engine import async_connection
from db.queries import session_view

CREATE = """
WITH older AS (
    UPDATE checkout_sessions SET status = CASE WHEN expires_at <= now() THEN 'expired' ELSE 'invalidated' END
    WHERE user_id = $2 AND status = 'active'
    RETURNING id
)
INSERT INTO checkout_sessions (
    id, user_id, status, package, step, data, origin, line_id, line_position, line_began_at, expires_at
)
SELECT $1, $2, 'active', $3, $4, $5::text::jsonb, 'created', $1, 0, now(), now() + make_interval(secs => $6)
WHERE (SELECT count(*) FROM older) >= 0
RETURNING id, user_id, status, package, step, data, origin, previous_session_id, payment_reference, created_at,
    updated_at, expires_at, completed_at, NULL::uuid AS successor_id, now() AS now
"""
TRIES = 5


class Writer:
    """Connections, the last given back taken first."""

    def __init__(self, settings: ApiSettings) -> None:
        self._settings = settings
        self._free: asyncio.LifoQueue[AsyncConnection[Any]] = asyncio.LifoQueue()

    async def open(self, size: int) -> None:
        """Connect `size` times."""
        for _ in range(size):
            connection = await async_connection(self._settings, "direct")
            connection.cursor_factory = AsyncRawCursor
            self._free.put_nowait(connection)

    async def close(self) -> None:
        """Give the connections back."""
        while not self._free.empty():
            await self._free.get_nowait().close()

    async def create(self, user_id: str, body: schemas.Create) -> tuple[Any, ...]:
        """Write one session."""
        values = [
            uuid7(), user_id, body.package, body.step, orjson.dumps(body.data or {}).decode(),
            self._settings.session_ttl_seconds,
        ]  # fmt: skip
        connection = await self._free.get()
        try:
            for tries in range(1, TRIES + 1):
                try:
                    cursor = connection.cursor(binary=True)
                    row: tuple[Any, ...] | None = await (await cursor.execute(CREATE, values, prepare=True)).fetchone()
                except UniqueViolation:
                    if tries == TRIES:
                        raise
                else:
                    assert row is not None
                    return row
        finally:
            self._free.put_nowait(connection)
        raise AssertionError("unreachable")


def create_app(settings: ApiSettings) -> FastAPI:
    """One path."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        writer = Writer(settings)
        await writer.open(baseline.number("POOL_SIZE", 8))
        app.state.parts.writer = writer
        yield
        await writer.close()

    return baseline.create_app(settings, lifespan, create_session)


async def _writer(request: Request) -> Writer:
    writer: Writer = request.app.state.parts.writer
    return writer


async def create_session(
    body: schemas.Create, writer: Annotated[Writer, Depends(_writer)], principal: Authenticated
) -> Response:
    """Begin a session."""
    with logs.operation("create") as done:
        row = await writer.create(user_of(principal, body.user_id), body)
        done.rows = 1
    logs.each("session created", [{"session_id": row[0], "user_id": row[1]}])
    return json(session_view(row).as_json(), 201)


if __name__ == "__main__":
    loaded = ApiSettings.load()
    baseline.serve(create_app(loaded), loaded)
