"""A worker that has answered a doorbell stays at the door for a moment, and answers further ones itself.

Celery's way from Redis to a task costs more than the task: five round trips, an acknowledgement, events. Here it is one
trip, and what waits is answered together. A doorbell taken here is not acknowledged: if the worker dies with it, the
redelivery sweep rings again, as for any that is lost.
"""

import base64
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

import orjson
import redis
import structlog
from celery.worker import state

from workers.inbound import flaw
from workers.messages import ids_of

log = structlog.get_logger("door")

LINGER_SECONDS: Final = 0.05  # without a doorbell; then the worker waits as Celery does
SHIFT_SECONDS: Final = 0.25  # then Celery has its turn: heartbeats, remote control, the acknowledgement of the first
TOGETHER: Final = 4  # messages answered as one; more serve fewer shoppers, since nobody else works meanwhile
EVENTS_LIMIT: Final = 300  # that wait for Celery's turn

Execute = Callable[[list[UUID], str, bool], object]  # ids, the message's own, and whether it was delivered before


@dataclass(frozen=True, slots=True)
class Doorbell:
    """A message of the queue."""

    headers: dict[str, Any]
    ids: list[UUID]
    redelivered: bool


@dataclass(slots=True)
class Door:
    """For a worker that executes in its main process, one task at a time.

    Args:
        client: to the broker.
        queue: of the doorbells.
        consumer: Celery's, which tells Flower.
    """

    client: redis.Redis
    queue: str
    consumer: Any

    def linger(self, execute: Execute) -> None:
        """Answer doorbells as long as they come and can be answered, within the shift."""
        until = time.monotonic() + SHIFT_SECONDS
        while time.monotonic() < until and not _stopping():
            try:
                messages = self._messages()
            except redis.RedisError as error:
                log.warning("doorbells not taken, celery tries", error=repr(error))
                return
            if not messages:
                return
            bells = [bell for bell in map(self._read, messages) if bell]
            if bells and not self._answer(bells, execute):
                return

    def _messages(self) -> list[bytes]:
        found: Any = self.client.rpop(self.queue, TOGETHER)
        if not found:
            popped: Any = self.client.brpop([self.queue], LINGER_SECONDS)
            found = popped and popped[1:]
        return list(found or [])

    def _read(self, message: bytes) -> Doorbell | None:
        try:
            parsed = orjson.loads(message)
        except ValueError:
            parsed = None
        wrong = flaw(parsed, self.queue)
        if wrong is not None:
            log.error("forged message set aside", queue=self.queue, flaw=wrong)
            return None
        ids = ids_of(orjson.loads(base64.b64decode(parsed["body"]))[0][0])
        if ids is None:
            log.error("malformed doorbell set aside")
            return None
        return Doorbell(parsed["headers"], ids, bool(parsed["properties"]["delivery_info"].get("redelivered")))

    def _answer(self, bells: list[Doorbell], execute: Execute) -> bool:
        """Returns whether it went well. What failed is red in Flower, and rung again by the sweep."""
        began = time.time()
        ids = [task_id for bell in bells for task_id in bell.ids]
        try:
            result = execute(ids, bells[0].headers["id"], any(bell.redelivered for bell in bells))
        except Exception as error:
            log.warning("doorbells not answered", tasks=len(ids), error=repr(error))
            self._show(bells, began, "task-failed", exception=repr(error), traceback="")
            return False
        self._show(bells, began, "task-succeeded", result=repr(result), runtime=time.time() - began)
        return True

    def _show(self, bells: list[Doorbell], began: float, end: str, **fields: Any) -> None:
        """Tell Flower, as Celery does of what it executes itself; afterwards, since the shopper waits before."""
        if not (dispatcher := self.consumer.event_dispatcher):
            return
        dispatcher.buffer_limit = EVENTS_LIMIT
        for bell in bells:
            one = {"uuid": bell.headers["id"], "timestamp": began}
            texts = {"name": bell.headers["task"], "args": bell.headers.get("argsrepr"), "kwargs": "{}", "retries": 0}
            dispatcher.send("task-received", **one, **texts)
            dispatcher.send("task-started", **one)
            dispatcher.send(end, uuid=bell.headers["id"], **fields)


def _stopping() -> bool:
    return any(asked is not None and asked is not False for asked in (state.should_stop, state.should_terminate))
