"""Signs of life of workers and beat, in Redis: who was heard last when. Whoever stops in good order says goodbye.

A worker's comes from the event loop of its main process, beat's from its own loop, so a process that is frozen or stuck
falls silent though it is there.
"""

import os
import socket
import time
from contextlib import suppress
from typing import Any, Final

import redis
from celery.beat import PersistentScheduler

KEY: Final = "checkout-sessions.heartbeats"  # a sorted set: "role queue name" by seconds since the epoch
FORGET_SECONDS: Final = 600  # who was killed is missed that long
WORKER: Final = "worker"
BEAT: Final = "beat"


class Heartbeat:
    """One process's sign of life.

    Args:
        redis_url: the broker.
        member: "role queue name", as `KEY` holds it.
    """

    def __init__(self, redis_url: str, member: str) -> None:
        self._redis = redis.Redis.from_url(redis_url, socket_timeout=0.5, socket_connect_timeout=0.5)
        self._member = member

    def give(self) -> None:
        """Be heard, best effort."""
        now = time.time()
        with suppress(redis.RedisError), self._redis.pipeline(transaction=False) as pipeline:
            pipeline.zadd(KEY, {self._member: now})
            pipeline.zremrangebyscore(KEY, "-inf", now - FORGET_SECONDS)
            pipeline.execute()

    def end(self) -> None:
        """Say goodbye: nobody misses who stops in good order."""
        with suppress(redis.RedisError):
            self._redis.zrem(KEY, self._member)


class Scheduler(PersistentScheduler):
    """Beat's own, with a sign of life at each turn of its loop."""

    def __init__(self, *args: Any, app: Any, **kwargs: Any) -> None:
        self._heartbeat = Heartbeat(app.conf.broker_url, f"{BEAT} - {BEAT}@{socket.gethostname()}:{os.getpid()}")
        super().__init__(*args, app=app, **kwargs)

    def tick(self, *args: Any, **kwargs: Any) -> Any:
        """Send what is due."""
        self._heartbeat.give()
        return super().tick(*args, **kwargs)

    def close(self) -> None:
        """Stop in good order."""
        self._heartbeat.end()
        super().close()


class Hearts:
    """The worker's: follows Celery's own heartbeat."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self._heartbeat: Heartbeat | None = None

    def sent(self, sender: Any, **_: Any) -> None:
        """Celery's heartbeat was sent, every other second."""
        if self._heartbeat is None:
            queues = ",".join(sorted(self._app.amqp.queues.consume_from))
            self._heartbeat = Heartbeat(self._app.conf.broker_url, f"{WORKER} {queues} {sender.eventer.hostname}")
        self._heartbeat.give()

    def stopped(self, **_: Any) -> None:
        """The worker ends in good order."""
        if self._heartbeat:
            self._heartbeat.end()
