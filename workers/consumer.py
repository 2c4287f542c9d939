"""How a worker comes back to Redis, and what it does when it does not notice that it is away."""

import os
import sys
import threading
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import celery.apps.worker
import redis
import structlog
from celery import bootsteps
from celery.worker import state
from celery.worker.consumer import Consumer as CeleryConsumer
from kombu.transport.redis import Channel

from db import logs

log = structlog.get_logger("consumer")

RETRY_SECONDS: Final = 2.0  # Celery's own pause grows to 30 s, which a shopper would wait after a long outage
EVENTS_SECONDS: Final = 0.25  # what an operator who watches Flower does not notice
LOOKS: Final = 9  # in a row, before a worker is called deaf: one that was frozen itself has missed only one
EXIT_STATUS: Final = 70  # EX_SOFTWARE; any will do, the process runner restarts what ends


_PARAMETERS: Final = Channel._connparams  # type: ignore[attr-defined]


def _connection_parameters(channel: Any, *args: Any, **kwargs: Any) -> Any:
    if channel.connection.client is None:
        raise redis.ConnectionError("this connection was torn down")
    return _PARAMETERS(channel, *args, **kwargs)


# kombu 5.7: after Redis was lost, a late acknowledgement, or putting back what is unacknowledged, stumbles over the
# connection that was torn down already. Its AttributeError ends the worker; a connection error is what Celery handles.
Channel._connparams = _connection_parameters  # type: ignore[attr-defined]


_CREATE_CLIENT: Final = Channel._create_client  # type: ignore[attr-defined]


def _one_client(channel: Any, asynchronous: bool = False) -> Any:
    if asynchronous:
        return _CREATE_CLIENT(channel, asynchronous)
    client = channel.__dict__.get("one_client")
    if client is None or client.connection_pool is not channel.pool:
        client = channel.one_client = _CREATE_CLIENT(channel)
    return client


# kombu 5.7 makes a client for each command, which is a sixth of what a message costs the worker's main process. One for
# each channel and pool serves as well: a client holds no connection of its own.
Channel._create_client = _one_client  # type: ignore[attr-defined]


def _say(message: str, *_: Any) -> None:
    if sys.stderr.isatty():
        os.write(2, f"\n{message}\n".encode())
    else:
        logs.each(message, [{}])


# What Celery says in a signal handler goes past all logging, and is no JSON.
celery.apps.worker.safe_say = _say  # type: ignore[attr-defined]


class Consumer(CeleryConsumer):
    """Comes back as soon as Redis does, and tells Flower of its tasks a few times a second."""

    hub: Any
    _flush_events: Any
    _flush_due = False

    def on_send_event_buffered(self) -> None:  # type: ignore[override]
        """Send events together: one by one they cost the worker more than a third of its time for a message."""
        if self.hub and not self._flush_due:
            self._flush_due = True
            self.hub.call_later(EVENTS_SECONDS, self._flush_soon)

    def _flush_soon(self) -> None:
        self._flush_due = False
        self._flush_events()

    def ensure_connected(self, conn: Any) -> Any:
        """Connect, trying again for as long as it takes."""
        conn.ensure_connection = partial(
            conn.ensure_connection, interval_start=0.2, interval_step=0.2, interval_max=RETRY_SECONDS
        )
        return super().ensure_connected(conn)


@dataclass(slots=True)
class Ear:
    """Tells a deaf worker from an idle one, a busy one, and one whose Redis is away.

    Deaf is who, look after look, lets messages wait without beginning or ending any.
    """

    _progress: object = None
    _looks: int = field(default=0)

    def is_deaf(self, backlog: int | None, progress: object) -> bool:
        """Take one look.

        Args:
            backlog: messages that wait in the worker's queues; None if Redis does not answer us either.
            progress: anything that changes when a message is begun or ended.
        """
        moved, self._progress = progress != self._progress, progress
        self._looks = 0 if moved or not backlog else self._looks + 1
        return self._looks >= LOOKS


class Watchdog(bootsteps.StartStopStep):
    """Ends a worker that is alive but deaf, so that the process runner starts another.

    A thread of the main process: the event loop may be what is stuck. The messages that such a worker holds are
    delivered again, and its pool processes end with it.
    """

    requires = ("celery.worker.components:Pool",)

    def __init__(self, worker: Any, **_: Any) -> None:
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, worker: Any) -> None:
        """Begin to watch."""
        self._thread = threading.Thread(target=self._watch, args=(worker,), name="watchdog", daemon=True)
        self._thread.start()

    def stop(self, worker: Any) -> None:
        """The worker ends in good order."""
        self._stopped.set()

    def terminate(self, worker: Any) -> None:
        """The worker ends at once."""
        self._stopped.set()

    def _watch(self, worker: Any) -> None:
        conf = worker.app.conf
        client = redis.Redis.from_url(conf.broker_url, socket_timeout=2, socket_connect_timeout=2)
        ear = Ear()
        while not self._stopped.wait(conf.watchdog_seconds / LOOKS):
            progress = (state.all_total_count[0], len(state.active_requests), len(state.reserved_requests))
            backlog = _backlog(client, list(worker.app.amqp.queues.consume_from))
            if ear.is_deaf(backlog, progress):
                log.critical("worker is deaf, it ends", backlog=backlog, seconds=conf.watchdog_seconds)
                os._exit(EXIT_STATUS)


def _backlog(client: redis.Redis, queues: list[str]) -> int | None:
    try:
        return sum(int(client.llen(queue)) for queue in queues)
    except redis.RedisError:
        return None
