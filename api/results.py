"""Tells who waits for a task's result: a word on Redis wakes them, and Postgres has the result.

Without Redis, or where its word is lost, the hub looks in Postgres by itself, all waiting tasks in one statement.
"""

import asyncio
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Final, Self
from uuid import UUID

import redis.asyncio as redis
import structlog

from api.connection import OwnConnection
from db import queries
from db.access import Role
from db.engine import driver_sql
from db.lifecycle import TaskState
from db.queries import TaskView
from db.settings import DatabaseSettings
from workers.messages import FINISHED_CHANNEL, unpack_ids

log = structlog.get_logger("results")

LOOK_SECONDS: Final = 2.0  # between looks while Redis speaks: only a lost word makes anyone wait for one
DEAF_LOOK_SECONDS: Final = 0.2  # without Redis
PING_SECONDS: Final = 2.0  # of silence on Redis, before it is asked whether it is there
READ_LIMIT: Final = 500  # tasks in one statement
READ_SECONDS: Final = 2.0

# Read on the driver's own connection: these two serve all who wait.
_TASKS_BY_ID, _TASK_CONSTANTS = driver_sql(queries.TASKS_BY_ID)
_FINISHED_AMONG, _FINISHED_CONSTANTS = driver_sql(queries.FINISHED_AMONG)


class Expected:
    """A result that someone waits for, as long as they are in this context."""

    __slots__ = ("_waiting", "future", "task_id")

    def __init__(self, task_id: UUID, waiting: "Waiting") -> None:
        self.task_id = task_id
        self.future: asyncio.Future[TaskView | None] = asyncio.get_running_loop().create_future()
        self._waiting = waiting

    def __enter__(self) -> Self:
        self._waiting.setdefault(self.task_id.bytes, []).append(self)
        return self

    def __exit__(self, *_: object) -> None:
        others = self._waiting[self.task_id.bytes]
        others.remove(self)
        if not others:
            del self._waiting[self.task_id.bytes]

    async def within(self, seconds: float) -> TaskView | None:
        """The finished task, or None when the time is over or the process stops."""
        if seconds <= 0:
            return None
        timer = self.future.get_loop().call_later(seconds, self.let_go)
        try:
            return await self.future
        finally:
            timer.cancel()

    def let_go(self) -> None:
        """Wait no longer."""
        if not self.future.done():
            self.future.set_result(None)


Waiting = dict[bytes, list[Expected]]  # by a task's id, as the words of it spell it


class Results:
    """The waiting requests of one API process.

    Args:
        settings: names Postgres, where results are read.
        redis_url: where workers publish which tasks are finished.
    """

    def __init__(self, settings: DatabaseSettings, redis_url: str) -> None:
        self._connection = OwnConnection(settings, "results", Role.AUDITOR)
        self._redis_url = redis_url
        self._waiting: Waiting = {}
        self._finished: set[bytes] = set()
        self._wake = asyncio.Event()
        self._deaf = True
        self._closed = False

    def expecting(self, task_id: UUID) -> Expected:
        """Expect a task's result; begin before the task is accepted, or the word may be missed."""
        expected = Expected(task_id, self._waiting)
        if self._closed:
            expected.future.set_result(None)
        return expected

    async def wait(self, task_id: UUID, seconds: float) -> TaskView | None:
        """The result of a task that was accepted before: looked up at once, since the word may have been said."""
        with self.expecting(task_id) as expected:
            self._finished.add(task_id.bytes)
            self._wake.set()
            return await expected.within(seconds)

    @property
    def waiting(self) -> int:
        """How many tasks are waited for."""
        return len(self._waiting)

    @property
    def deaf(self) -> bool:
        """Whether Redis is out of reach."""
        return self._deaf

    @property
    def closed(self) -> bool:
        """Whether nobody is to wait any more, since the process stops."""
        return self._closed

    async def hang_up(self) -> None:
        """Close the connection."""
        await self._connection.close()

    def close(self) -> None:
        """Let everyone who waits go with what they have."""
        self._closed = True
        for some in self._waiting.values():
            for expected in some:
                expected.let_go()

    async def listen(self) -> None:
        """Hear which tasks are finished, for ever."""
        while True:
            try:
                await self._subscribe()
            except (redis.RedisError, OSError, TimeoutError) as error:
                if not self._deaf:
                    log.warning("redis lost, looking in postgres instead", error=repr(error))
                self._deaf = True
            await asyncio.sleep(DEAF_LOOK_SECONDS)

    async def _subscribe(self) -> None:
        client = redis.Redis.from_url(
            self._redis_url, socket_timeout=PING_SECONDS, socket_connect_timeout=1, socket_keepalive=True
        )
        async with client, client.pubsub(ignore_subscribe_messages=True) as pubsub:
            await pubsub.subscribe(FINISHED_CHANNEL)
            asked = False
            while True:
                message = await pubsub.get_message(timeout=PING_SECONDS)
                if message is None:  # a connection that died silently does not answer
                    if asked:
                        raise TimeoutError("no answer to a ping")
                    await pubsub.ping()
                asked = message is None
                if message:
                    self._deaf = False
                    if message["type"] == "message":
                        self._heard(unpack_ids(message["data"]))

    def _heard(self, finished: list[bytes]) -> None:
        waited_for = self._waiting.keys() & finished
        if waited_for:
            self._finished |= waited_for
            self._wake.set()

    async def tell(self) -> None:
        """Read what was heard of, and now and then look for words that were lost; wake who waits. For ever."""
        clock = asyncio.get_running_loop().time
        looked = clock()
        while True:
            look_at = looked + (DEAF_LOOK_SECONDS if self._deaf else LOOK_SECONDS)
            with suppress(TimeoutError):
                async with asyncio.timeout_at(look_at):
                    await self._wake.wait()
            self._wake.clear()
            try:
                if clock() >= look_at:
                    looked = clock()
                    await self._look()
                await self._read()
            except Exception as error:
                log.warning("results not read, trying again", tasks=len(self._waiting), error=repr(error))
                await asyncio.sleep(DEAF_LOOK_SECONDS)

    async def _look(self) -> None:
        for some in self._chunked(self._waiting):
            rows = await self._connection.fetch(
                _FINISHED_AMONG, {**_FINISHED_CONSTANTS, "task_ids": some}, READ_SECONDS
            )
            self._finished.update(row[0].bytes for row in rows)

    async def _read(self) -> None:
        """Read what was heard of until now: what is heard meanwhile may be newer than what is read."""
        heard, self._finished = self._finished, set()
        try:
            for some in self._chunked(heard):
                parameters = {**_TASK_CONSTANTS, "task_ids": some}
                for row in await self._connection.fetch(_TASKS_BY_ID, parameters, READ_SECONDS):
                    task = queries.task_view(row)
                    for expected in self._waiting.get(task.id.bytes, ()):
                        if task.state is not TaskState.PENDING and not expected.future.done():
                            expected.future.set_result(task)
        except BaseException:
            self._finished |= heard  # an outage loses no one
            raise

    def _chunked(self, keys: Iterable[bytes]) -> Iterator[list[UUID]]:
        """The ids of those that are waited for, in pieces of a size for one statement."""
        ids = [some[0].task_id for some in map(self._waiting.get, keys) if some]
        return (ids[start : start + READ_LIMIT] for start in range(0, len(ids), READ_LIMIT))
