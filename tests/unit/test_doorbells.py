"""When the API rings: at once, and together for what is due together."""

import asyncio
from typing import Any
from uuid import UUID, uuid4

from api.doorbells import Doorbells
from db.lifecycle import Kind
from workers.configuration import create_app
from workers.messages import BATCH_LIMIT
from workers.settings import WorkerSettings


class Recorded(Doorbells):
    """Doorbells that keep what they would push."""

    def __init__(self) -> None:
        settings = WorkerSettings(database_url="postgresql://n@localhost/n", redis_url="redis://localhost")  # type: ignore[arg-type]
        super().__init__(create_app(settings, {}), "redis://localhost")
        self.pushed: list[int] = []

    async def _push(self, queue: str, messages: list[bytes]) -> None:
        self.pushed.append(len(messages))


def _tasks(count: int) -> list[tuple[UUID, Kind]]:
    return [(uuid4(), Kind.CREATE) for _ in range(count)]


async def _until(condition: Any) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0)


def _run(scenario: Any) -> None:
    async def main() -> None:
        bells = Recorded()
        running = asyncio.create_task(bells.run())
        try:
            await scenario(bells)
        finally:
            running.cancel()

    asyncio.run(main())


def test_a_lone_request_rings_at_once() -> None:
    async def scenario(bells: Recorded) -> None:
        bells.ring(_tasks(1))
        await _until(lambda: bells.pushed == [1])

    _run(scenario)


def test_what_becomes_due_together_rings_together() -> None:
    async def scenario(bells: Recorded) -> None:
        for _ in range(5):
            bells.ring(_tasks(3))
        await _until(lambda: bells.pushed == [1])

    _run(scenario)


def test_no_message_names_more_than_a_batch_holds() -> None:
    async def scenario(bells: Recorded) -> None:
        bells.ring(_tasks(2 * BATCH_LIMIT + 1))
        await _until(lambda: bells.pushed == [3])

    _run(scenario)
