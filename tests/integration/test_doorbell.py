"""Ringing on a real Redis: one message a kind, of a bounded size, on the right queue; and without Redis."""

import base64
import json
from collections.abc import Iterator
from itertools import chain
from typing import Any
from uuid import uuid4

import pytest
import redis

from db.lifecycle import Kind
from local.embedded import free_port
from workers import doorbell
from workers.configuration import WORKER_TRANSPORT, create_app
from workers.messages import BATCH_LIMIT, EXPIRE_SESSIONS, MAINTENANCE_QUEUE, SESSIONS_QUEUE
from workers.settings import WorkerSettings


def settings(redis_url: str) -> WorkerSettings:
    return WorkerSettings(database_url="postgresql://nobody@localhost/none", redis_url=redis_url)


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    """A client of a Redis whose queues are empty."""
    with redis.Redis.from_url(redis_url) as client:
        client.delete(SESSIONS_QUEUE, MAINTENANCE_QUEUE)
        yield client


def messages(client: redis.Redis, queue: str) -> list[tuple[str, list[Any]]]:
    """Name and arguments of what lies in a queue, in the order in which workers take it."""
    found = []
    while message := client.rpop(queue):
        message = json.loads(message)
        found.append((message["headers"]["task"], json.loads(base64.b64decode(message["body"]))[0]))
    return found


def test_one_message_a_kind_names_its_tasks_in_their_order(client: redis.Redis, redis_url: str) -> None:
    tasks = [(uuid4(), kind) for _ in range(3) for kind in Kind]
    with create_app(settings(redis_url), WORKER_TRANSPORT) as app:
        assert doorbell.ring(app, tasks)
    assert messages(client, SESSIONS_QUEUE) == [
        (f"sessions.{kind}", [[str(task_id) for task_id, its in tasks if its is kind]]) for kind in Kind
    ]


def test_no_message_names_more_tasks_than_a_batch_holds(client: redis.Redis, redis_url: str) -> None:
    tasks = [(uuid4(), Kind.RENEW) for _ in range(2 * BATCH_LIMIT + 1)]
    with create_app(settings(redis_url), WORKER_TRANSPORT) as app:
        assert doorbell.ring(app, tasks)
    rung = [args[0] for _, args in messages(client, SESSIONS_QUEUE)]
    assert [len(ids) for ids in rung] == [BATCH_LIMIT, BATCH_LIMIT, 1]
    assert list(chain.from_iterable(rung)) == [str(task_id) for task_id, _ in tasks]


def test_maintenance_goes_to_a_queue_of_its_own(client: redis.Redis, redis_url: str) -> None:
    with create_app(settings(redis_url), WORKER_TRANSPORT) as app:
        assert doorbell.send(app, EXPIRE_SESSIONS, ["run"])
    assert messages(client, SESSIONS_QUEUE) == []
    assert messages(client, MAINTENANCE_QUEUE) == [(EXPIRE_SESSIONS, ["run"])]


def test_without_redis_the_doorbell_is_lost_and_nothing_is_raised() -> None:
    impatient = WORKER_TRANSPORT | {"max_retries": 1, "interval_start": 0, "interval_step": 0, "interval_max": 0}
    with create_app(settings(f"redis://127.0.0.1:{free_port()}/0"), impatient) as app:
        assert not doorbell.ring(app, [(uuid4(), Kind.CREATE)])
        assert not doorbell.send(app, EXPIRE_SESSIONS, [])
