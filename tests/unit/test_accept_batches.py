"""How many requests an accept takes: a stage's share of those under way, few at once when few are."""

import asyncio
from typing import Any
from uuid import uuid4

import pytest

from api.accept import SMALL, STAGES, Acceptor, Request
from db.lifecycle import Kind
from db.settings import DatabaseSettings
from workers.messages import BATCH_LIMIT


class Counted(Acceptor):
    """Accepts nothing, and keeps how many it was to accept together."""

    def __init__(self, under_way: int) -> None:
        settings = DatabaseSettings(database_url="postgresql://n@localhost/n")  # type: ignore[arg-type]
        super().__init__(settings, doorbells=None, patience=1, under_way=lambda: under_way)  # type: ignore[arg-type]
        self.batches: list[int] = []

    async def _accept(self, batch: list[Any]) -> None:
        self.batches.append(len(batch))
        for _, future in batch:
            future.set_result(None)


@pytest.mark.parametrize(
    ("under_way", "most"),
    [(1, SMALL), (SMALL * STAGES, SMALL), (200, 200 // STAGES), (5_000, BATCH_LIMIT)],
)
def test_a_batch_is_a_stages_share_of_what_is_under_way(under_way: int, most: int) -> None:
    async def main() -> list[int]:
        acceptor = Counted(under_way)
        running = asyncio.create_task(acceptor.run())
        request = Request(uuid4(), Kind.CREATE, "u", uuid4(), b"{}", None, None, None)
        async with asyncio.timeout(30):
            await asyncio.gather(*(acceptor.accept(request) for _ in range(2 * BATCH_LIMIT + 1)))
        running.cancel()
        return acceptor.batches

    batches = asyncio.run(main())
    assert sum(batches) == 2 * BATCH_LIMIT + 1
    assert set(batches[:-1]) == {most}
