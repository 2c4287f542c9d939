"""What a worker takes from Redis is untrusted: a message that is not one of ours is set aside before kombu looks at it.

kombu and Celery take what they find for well-formed, and half of what can be forged ends the worker. Nothing is lost
with a message that is set aside: what was accepted is in Postgres, and rung for again.
"""

import base64
import json
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final

import structlog
from kombu.transport import redis as kombu_redis
from kombu.transport.redis import QoS
from kombu.transport.virtual import Transport
from kombu.utils.json import loads

from workers.messages import BATCH_LIMIT, MAINTENANCE_QUEUE, MAINTENANCE_TASKS, SESSION_TASKS, SESSIONS_QUEUE

log = structlog.get_logger("inbound")

TASKS_OF: Final[Mapping[str, frozenset[str]]] = {
    SESSIONS_QUEUE: frozenset(SESSION_TASKS.values()),
    MAINTENANCE_QUEUE: MAINTENANCE_TASKS,
}
ARGUMENTS_LIMIT: Final = 64 * 1024  # characters of a body; 256 ids take 14,000
NAMED: Final = ("id", "task")
TOLD: Final = ("root_id", "parent_id", "group", "shadow", "argsrepr", "kwargsrepr", "origin", "expires", "lang")
EMPTY: Final = ("eta", "compression")


class Forged:
    """Stands for what is not JSON."""


def flaw(message: Any, queue: str) -> str | None:
    """What is wrong with a message, or None.

    Args:
        message: the JSON that lay in Redis.
        queue: where it lay; what comes of other places than the queues of tasks (remote control) names no task.
    """
    try:
        body = _envelope(message)
        return _task(message["headers"], body, TASKS_OF[queue], queue) if queue in TASKS_OF else None
    except _FlawError as found:
        return str(found)
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        return type(error).__name__


class _FlawError(Exception):
    pass


def _demand(fine: bool, otherwise: str) -> None:
    if not fine:
        raise _FlawError(otherwise)


def _envelope(message: Any) -> bytes:
    """Check what kombu reads, and give the body."""
    _demand(isinstance(message, dict), "not a message")
    properties, info = message["properties"], message["properties"]["delivery_info"]
    _demand(isinstance(message["headers"], dict), "headers")
    _demand(isinstance(properties["delivery_tag"], str), "delivery tag")
    _demand(isinstance(info["exchange"], str) and isinstance(info["routing_key"], str), "delivery info")
    _demand(isinstance(properties.get("priority", 0), int), "priority")
    _demand(message["content-type"] == "application/json", "content type")
    _demand(message["content-encoding"] == "utf-8", "content encoding")
    _demand(properties["body_encoding"] == "base64" and isinstance(message["body"], str), "body encoding")
    return base64.b64decode(message["body"], validate=True)


def _task(headers: dict[str, Any], body: bytes, names: frozenset[str], queue: str) -> str | None:
    """Check what Celery reads (protocol 2)."""
    _demand(all(isinstance(headers[name], str) for name in NAMED), "no id or no task")
    _demand(headers["task"] in names, "unknown task, or not of this queue")
    _demand(all(isinstance(headers.get(name, ""), str | None) for name in TOLD), "headers")
    _demand(all(headers.get(name) is None for name in EMPTY), "headers")
    if headers.get("expires") is not None:
        datetime.fromisoformat(headers["expires"])
    _demand(headers.get("retries", 0) == 0, "retries")
    hard, soft = headers.get("timelimit") or (None, None)
    _demand(soft is None and (hard is None or hard >= 1), "time limits")
    _demand(isinstance(headers.get("stamps") or {}, dict), "stamps")
    _demand(isinstance(headers.get("stamped_headers") or [], list), "stamps")
    _demand(len(body) <= ARGUMENTS_LIMIT, "arguments too long")
    arguments, named, embedded = json.loads(body)
    _demand(not any(embedded.values()), "a workflow")
    _demand(named == {} and isinstance(arguments, list), "arguments")
    _demand(len(arguments) == 1 if queue == SESSIONS_QUEUE else len(arguments) <= 1, "arguments")
    if queue == SESSIONS_QUEUE:
        ids = arguments[0]
        _demand(isinstance(ids, list) and len(ids) <= BATCH_LIMIT, "arguments")
    else:
        _demand(all(isinstance(argument, str) for argument in arguments), "arguments")
    return None


def guard() -> None:
    """Look at whatever kombu takes from Redis, in this process."""
    if vars(kombu_redis)["loads"] is not _loads:
        vars(kombu_redis)["loads"] = _loads
        Transport._deliver = _guarded(Transport._deliver)  # type: ignore[method-assign]
        QoS.restore_by_tag = _restoring(QoS.restore_by_tag)  # type: ignore[method-assign]


def _loads(text: Any) -> Any:
    try:
        return loads(text)
    except (ValueError, TypeError, RecursionError, KeyError, AttributeError):
        return Forged()


def _guarded(deliver: Callable[..., Any]) -> Callable[..., Any]:
    def guarded(transport: Any, message: Any, queue: str) -> None:
        wrong = flaw(message, queue)
        if wrong is None:
            deliver(transport, message, queue)
        else:
            log.error("forged message set aside", queue=queue, flaw=wrong)

    return guarded


def _restoring(restore: Callable[..., Any]) -> Callable[..., Any]:
    def restoring(qos: Any, tag: Any, client: Any = None, leftmost: bool = False) -> None:
        """Put back what a dead worker had taken; the hash where it lies can be written to as well."""
        try:
            restore(qos, tag, client, leftmost)
        except (ValueError, TypeError):
            log.error("forged message set aside", queue=qos.unacked_key, flaw="not a message")
            with qos.channel.conn_or_acquire(client) as connection:
                connection.zrem(qos.unacked_index_key, tag)
                connection.hdel(qos.unacked_key, tag)

    return restoring
