"""What one API process holds, from start to stop."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Annotated, Any, Final

import structlog
from fastapi import Depends, Request
from sqlalchemy.ext.asyncio import AsyncEngine

from api.accept import Acceptor
from api.auth import Verifier
from api.connection import Connections
from api.doorbells import Doorbells
from api.limits import Backlog
from api.rates import Rates
from api.results import Results
from api.settings import ApiSettings
from api.watch import Watch
from db.access import Role
from db.engine import async_engine
from workers.configuration import create_app

log = structlog.get_logger("api")


# Connections of one process at most, opened when they are needed.
READERS: Final = 8
AUDITORS: Final = 4
TRANSACTIONS: Final[dict[Role | None, int]] = {Role.NAVIGATOR: 4, Role.ACCEPTOR: 1}


@dataclass(slots=True)
class State:
    """The parts of a running API process."""

    settings: ApiSettings
    reader: Connections
    auditor: Connections
    engines: dict[Role | None, AsyncEngine]
    doorbells: Doorbells
    acceptor: Acceptor
    results: Results
    backlog: Backlog
    rates: Rates
    verifier: Verifier
    watch: Watch

    @staticmethod
    def of(settings: ApiSettings) -> "State":
        """Put the parts together; nothing connects yet."""
        engines = {role: async_engine(settings, "api", size, role) for role, size in TRANSACTIONS.items()}
        if settings.demo:
            engines[None] = async_engine(settings, "demo", 1)  # it turns clocks back, which no role may
        auditor = Connections(settings, Role.AUDITOR, AUDITORS)
        doorbells = Doorbells(create_app(settings, {}), str(settings.redis_url))
        results = Results(settings, str(settings.redis_url))
        return State(
            settings=settings,
            reader=Connections(settings, Role.READER, READERS),
            auditor=auditor,
            engines=engines,
            doorbells=doorbells,
            acceptor=Acceptor(settings, doorbells, settings.redeliver_interval_seconds, lambda: results.waiting),
            results=results,
            backlog=Backlog(auditor, settings.backlog_limit),
            rates=Rates(settings),
            verifier=Verifier(settings),
            watch=Watch(settings),
        )

    def pools(self) -> dict[str, tuple[int, int]]:
        """Connections in use, and at most, by what they are for."""
        used = {"reader": self.reader.in_use, "auditor": self.auditor.in_use}
        sizes = {"reader": self.reader.size, "auditor": self.auditor.size}
        navigator: Any = self.engines[Role.NAVIGATOR].pool
        used["navigator"], sizes["navigator"] = navigator.checkedout(), navigator.size()
        return {name: (used[name], sizes[name]) for name in used}

    @staticmethod
    def clock() -> float:
        """Seconds since the epoch, for tokens only: sessions go by the database's clock."""
        return time.time()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Accept, listen, tell and watch until the process stops."""
        loops = [
            asyncio.create_task(loop, name=name)
            for name, loop in {
                "ring": self.doorbells.run(),
                "accept": self.acceptor.run(),
                "listen": self.results.listen(),
                "tell": self.results.tell(),
                "backlog": self.backlog.watch(),
                "rates": self.rates.share(),
                "watch": self.watch.run(),
            }.items()
        ]
        try:
            yield
        finally:
            await end(set(loops))
            await self.acceptor.close()
            await self.results.hang_up()
            await self.doorbells.close()
            await self.watch.close()
            await self.rates.close()
            for connections in (self.reader, self.auditor):
                await connections.close()
            for engine in self.engines.values():
                await engine.dispose()


async def end(loops: set[asyncio.Task[None]]) -> None:
    """Cancel until they have ended: redis-py can swallow a cancellation that comes in the middle of a command."""
    for _ in range(10):
        for loop in loops:
            loop.cancel()
        _, loops = await asyncio.wait(loops, timeout=0.2)
        if not loops:
            return
    log.error("loops do not end", loops=sorted(loop.get_name() for loop in loops))


async def _state(request: Request) -> State:
    state: State = request.app.state.parts
    return state


Parts = Annotated[State, Depends(_state)]
