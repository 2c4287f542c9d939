"""When the API rings: at once for a lone request, together while workers are busy."""

import asyncio
from typing import Any
from uuid import UUID, uuid4

import pytest

from api.doorbells import WINDOW, Doorbells
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


def test_what_comes_while_the_window_is_full_rings_together_when_a_message_is_answered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("api.doorbells.WINDOW_SECONDS", 3600)

    async def scenario(bells: Recorded) -> None:
        first = _tasks(1)
        bells.ring(first)
        await _until(lambda: len(bells.pushed) == 1)
        for _ in range(WINDOW - 1):
            bells.ring(_tasks(1))
            await _until(lambda: len(bells.pushed) == WINDOW)
        for _ in range(5):
            bells.ring(_tasks(3))
            await asyncio.sleep(0)
        assert len(bells.pushed) == WINDOW
        bells.answered([task_id for task_id, _ in first])
        await _until(lambda: len(bells.pushed) == WINDOW + 1)
        assert bells.pushed[-1] == 1

    _run(scenario)


def test_a_full_message_goes_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.doorbells.WINDOW_SECONDS", 3600)

    async def scenario(bells: Recorded) -> None:
        for n in range(WINDOW + 1):
            bells.ring(_tasks(BATCH_LIMIT))
            await _until(lambda n=n: len(bells.pushed) == n + 1)

    _run(scenario)


def test_an_answer_that_is_lost_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.doorbells.WINDOW_SECONDS", 0.01)

    async def scenario(bells: Recorded) -> None:
        for n in range(3 * WINDOW):
            bells.ring(_tasks(1))
            await _until(lambda n=n: len(bells.pushed) == n + 1)

    _run(scenario)
