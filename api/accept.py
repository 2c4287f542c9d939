"""Accepts requests: a committed row in `session_tasks` first, the doorbell after it.

Requests that arrive while an accept is under way are accepted together by the next one. There is no timer: alone, a
request waits for nobody; under load, batches grow by themselves and share the cost.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import orjson
import structlog

from api.connection import OwnConnection
from api.doorbells import Doorbells
from api.measurements import ACCEPT_BATCH
from api.problems import Problem, unavailable
from db import logs, statements
from db.access import Role
from db.engine import is_outage
from db.lifecycle import Kind, TaskState
from db.settings import DatabaseSettings
from workers.messages import BATCH_LIMIT

log = structlog.get_logger("accept")

ACCEPT_SECONDS: Final = 1.8  # then the client hears 503: within two seconds, whatever Postgres does
PROGRESS_SECONDS: Final = 0.8  # since the last commit: for so long Postgres is taken to be well
TURNS: Final = 2  # of the event loop, from a socket's bytes to a request that waits here
STAGES: Final = 4  # API, Postgres, worker, and the way back: with one batch for each, none waits for the others
SMALL: Final = 24  # requests; fewer in a batch cost more than stages that wait
WAITING_LIMIT: Final = 10_000  # requests waiting to be accepted by this process; their bodies are at most 64 KiB each


@dataclass(frozen=True, slots=True)
class Request:
    """What is to be accepted; becomes a row of `session_tasks`."""

    id: UUID
    kind: Kind
    user_id: str
    session_id: UUID
    payload: bytes
    idempotency_key: str | None
    request_hash: str | None
    request_id: str | None


@dataclass(frozen=True, slots=True)
class Accepted:
    """A task that is committed: this request's, or the one that its idempotency key stands for."""

    id: UUID
    session_id: UUID
    accepted_at: datetime
    state: TaskState = TaskState.PENDING


class Acceptor:
    """Accepts on a connection of its own, one batch at a time.

    Args:
        settings: names Postgres.
        doorbells: rings for what is committed.
        patience: seconds after which the sweep rings again for a task that is still pending.
        under_way: how many requests of this process are not answered yet.
    """

    def __init__(
        self, settings: DatabaseSettings, doorbells: Doorbells, patience: float, under_way: Callable[[], int]
    ) -> None:
        self._connection = OwnConnection(settings, "acceptor", Role.ACCEPTOR)
        self._doorbells = doorbells
        self._patience = patience
        self._under_way = under_way
        self._waiting: deque[tuple[Request, asyncio.Future[Accepted]]] = deque()
        self._wake = asyncio.Event()
        self._committed_at = 0.0

    async def accept(self, request: Request) -> Accepted:
        """Wait until the request is committed.

        Raises:
            Problem: `database_unavailable`, `backlog_full`, `idempotency_key_reused`. Nothing was accepted, or, after
                an outage, perhaps it was: a repeat under the same idempotency key is safe.
        """
        if len(self._waiting) >= WAITING_LIMIT:
            raise Problem("backlog_full")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Accepted] = loop.create_future()
        self._waiting.append((request, future))
        self._wake.set()
        timer = loop.call_later(ACCEPT_SECONDS, self._too_late, future)
        try:
            return await future
        finally:
            timer.cancel()

    def _too_late(self, future: asyncio.Future[Accepted]) -> None:
        """Let a request go, unless it is only the queue that is long: while Postgres commits, its turn comes."""
        loop = future.get_loop()
        if future.done():
            return
        if loop.time() - self._committed_at < PROGRESS_SECONDS:
            loop.call_later(PROGRESS_SECONDS / 4, self._too_late, future)
        else:
            future.set_exception(unavailable())

    async def run(self) -> None:
        """Accept for ever."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._waiting:
                most = min(max(self._under_way() // STAGES, SMALL), BATCH_LIMIT)
                await self._gather(most)
                count = min(len(self._waiting), most)
                batch = [self._waiting.popleft() for _ in range(count)]
                # In one order for all processes: two that insert each other's keys would otherwise wait for each other.
                batch.sort(key=lambda entry: (entry[0].idempotency_key or "", entry[0].user_id))
                await self._accept([entry for entry in batch if not entry[1].done()])

    async def _gather(self, most: int) -> None:
        """Let in who is at the door: requests that have arrived, and are not parsed yet. Takes microseconds alone."""
        seen = 0
        while seen < len(self._waiting) < most:
            seen = len(self._waiting)
            for _ in range(TURNS):
                await asyncio.sleep(0)

    async def close(self) -> None:
        """Give the connection back."""
        await self._connection.close()

    async def _accept(self, batch: list[tuple[Request, asyncio.Future[Accepted]]]) -> None:
        if not batch:
            return
        ACCEPT_BATCH.observe(len(batch))
        try:
            answers = await self._commit([request for request, _ in batch])
        except Exception as error:
            if not is_outage(error) and len(batch) > 1:  # one of them spoils it for the others
                for entry in batch:
                    await self._accept([entry])
                return
            log.warning("accept failed", tasks=len(batch), error=repr(error))
            answers = [unavailable() if is_outage(error) else error for _ in batch]
        new = [r for (r, _), answer in zip(batch, answers, strict=True) if getattr(answer, "id", None) == r.id]
        self._doorbells.ring([(request.id, request.kind) for request in new])
        logs.each("task accepted", map(_logged, new))
        for (_, future), answer in zip(batch, answers, strict=True):
            if future.done():
                continue
            if isinstance(answer, Accepted):
                future.set_result(answer)
            else:
                future.set_exception(answer)

    async def _commit(self, requests: list[Request]) -> list[Accepted | Exception]:
        """One INSERT, tried twice: a connection that died while idle is no outage, and ids make it repeatable."""
        for attempt in (1, 2):
            try:
                return await self._insert(requests)
            except Exception as error:
                if attempt == 2 or not is_outage(error):
                    raise
        raise AssertionError("unreachable")

    async def _insert(self, requests: list[Request]) -> list[Accepted | Exception]:
        rows = await self._connection.fetch(
            statements.ACCEPT, _parameters(requests, self._patience), ACCEPT_SECONDS / 2
        )
        committed: dict[UUID, datetime] = dict(rows)
        self._committed_at = asyncio.get_running_loop().time()
        missing = [request for request in requests if request.id not in committed]
        before = await self._accepted_before(missing) if missing else {}
        return [
            Accepted(request.id, request.session_id, committed[request.id])
            if request.id in committed
            else before[request.id]
            for request in requests
        ]

    async def _accepted_before(self, requests: list[Request]) -> dict[UUID, Accepted | Exception]:
        keyed = [request for request in requests if request.idempotency_key]
        rows = await self._connection.fetch(
            statements.ACCEPTED_BEFORE,
            {
                "id": [request.id for request in requests],
                "user_id": [request.user_id for request in keyed],
                "idempotency_key": [request.idempotency_key for request in keyed],
            },
            ACCEPT_SECONDS / 2,
        )
        by_id = {row[0]: row for row in rows}
        by_key = {(row[4], row[5]): row for row in rows if row[5]}
        found: dict[UUID, Accepted | Exception] = {}
        for request in requests:
            row = by_id.get(request.id) or by_key[request.user_id, request.idempotency_key]
            task_id, accepted_at, session_id, state, _, _, request_hash = row
            if task_id == request.id or request_hash == request.request_hash:
                found[request.id] = Accepted(task_id, session_id, accepted_at, TaskState(state))
            else:
                found[request.id] = Problem("idempotency_key_reused")
        return found


def _logged(request: Request) -> dict[str, Any]:
    return {
        "request_id": request.request_id,
        "task_id": request.id,
        "kind": request.kind,
        "user_id": request.user_id,
        "session_id": request.session_id,
    }


def _parameters(requests: list[Request], patience: float) -> dict[str, Any]:
    return {
        "tasks": orjson.dumps([_row(n, request) for n, request in enumerate(requests)]).decode(),
        "addressed": list({request.session_id for request in requests if request.kind is not Kind.CREATE}),
        "patience": patience,
    }


def _row(n: int, request: Request) -> dict[str, Any]:
    return {
        "n": n,
        "id": request.id,
        "kind": request.kind,
        "user_id": request.user_id,
        "session_id": request.session_id,
        "payload": orjson.Fragment(request.payload),
        "idempotency_key": request.idempotency_key,
        "request_hash": request.request_hash,
        "request_id": request.request_id,
    }
