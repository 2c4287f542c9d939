"""Who can write to Redis can forge messages: each is set aside with a log line, and the next good one is served."""

import base64
import json
import pickle
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import httpx
import psycopg
import pytest
import redis
from celery import Celery

from local.servers import EmbeddedPostgres, EmbeddedRedis
from tests.conftest import create_database
from tests.stack import Process, Stack, eventually, headers
from workers.envelope import envelope
from workers.inbound import TASKS_OF, flaw
from workers.messages import BATCH_LIMIT, MAINTENANCE_QUEUE, SESSIONS_QUEUE


def of(**changes: Any) -> bytes:
    """A good message with some of its parts replaced; None takes a part away."""
    app = Celery("forger", broker="redis://")
    message = json.loads(envelope(app, "sessions.create", [[str(uuid4())]], "sessions"))
    for path, value in changes.items():
        *parents, last = path.split("__")
        part = message
        for parent in parents:
            part = part[parent.replace("_", "-") if parent.startswith("content") else parent]
        last = last.replace("_", "-") if last.startswith("content") else last
        if value is None:
            part.pop(last, None)
        else:
            part[last] = value
    return json.dumps(message).encode()


def body(value: Any) -> str:
    """A body as messages hold it."""
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.b64encode(raw).decode()


EMBED = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
FORGED: dict[str, bytes] = {
    "no JSON": b"hello",
    "nothing": b"",
    "half a message": of()[:200],
    "no UTF-8": b"\xff\xfe\x00",
    "a NUL": b"\x00",
    "a pickle": pickle.dumps({"body": 1}),
    "null": b"null",
    "a number": b"1",
    "a text": b'"sessions.create"',
    "a list": b"[]",
    "an empty object": b"{}",
    "deep JSON": b"[" * 5_000 + b"]" * 5_000,
    "no properties": of(properties=None),
    "properties that are a list": of(properties=[]),
    "no delivery tag": of(properties__delivery_tag=None),
    "a delivery tag that is an object": of(properties__delivery_tag={"$ne": 1}),
    "no delivery info": of(properties__delivery_info=None),
    "a delivery info that is a text": of(properties__delivery_info="x"),
    "no body": of(body=None),
    "a body that is no base64": of(body="%%%"),
    "a body that is a number": of(body=7),
    "a body that is no JSON": of(body=body(b"hello")),
    "a body that is no UTF-8": of(body=body(b"\xff\xfe")),
    "a body that is a pickle": of(body=body(pickle.dumps([[], {}])), content_type="application/x-python-serialize"),
    "a body that says JSON and is a pickle": of(body=body(pickle.dumps([[], {}, EMBED]))),
    "a body that is YAML": of(body=body(b"!!python/name:os.system"), content_type="application/x-yaml"),
    "an unknown encoding": of(content_encoding="klingon"),
    "an unknown body encoding": of(properties__body_encoding="rot13"),
    "no content type": of(content_type=None),
    "no headers": of(headers=None),
    "headers that are a list": of(headers=[]),
    "headers that are a text": of(headers="x"),
    "no task in the headers": of(headers__task=None),
    "a task that is a list": of(headers__task=["sessions.create"]),
    "an unknown task": of(headers__task="os.system"),
    "Celery's own tasks": of(headers__task="celery.chord_unlock"),
    "no id": of(headers__id=None),
    "an id that is an object": of(headers__id={"a": 1}),
    "a date that is none": of(headers__eta="tomorrow"),
    "a date that is a list": of(headers__eta=[1]),
    "an expiry that is none": of(headers__expires="never"),
    "an expiry that is an object": of(headers__expires={}),
    "retries that are a text": of(headers__retries="many"),
    "time limits that are a text": of(headers__timelimit="long"),
    "time limits that are negative": of(headers__timelimit=[-1, -1]),
    "a compression that is none": of(headers__compression="zip-bomb"),
    "arguments that are no list": of(body=body(["x", {}, EMBED])),
    "arguments of another shape": of(body=body([[1, 2, 3], {}, EMBED])),
    "arguments by name": of(body=body([[], {"task_ids": "x", "self": 1}, EMBED])),
    "ids that are no ids": of(body=body([[["x", None, {}]], {}, EMBED])),
    "ids that are a text": of(body=body([["x"], {}, EMBED])),
    "ids of SQL": of(body=body([[["'; DROP TABLE session_tasks; --"]], {}, EMBED])),
    "a callback": of(body=body([[[]], {}, {**EMBED, "callbacks": [{"task": "os.system", "args": ["true"]}]}])),
    "an embed that is a list": of(body=body([[[]], {}, []])),
    "a body of two": of(body=body([[], {}])),
    "a body that is null": of(body=body(None)),
    "ten thousand ids": of(body=body([[[str(uuid4()) for _ in range(10_000)]], {}, EMBED])),
    "a message of 8 MB": of(body=body([["x" * 6_000_000], {}, EMBED])),
    "a session's task for maintenance": of(headers__task="maintenance.expire_sessions", body=body([["x"], {}, EMBED])),
}  # fmt: skip


@pytest.fixture(scope="module")
def besieged(
    postgres: EmbeddedPostgres, redis_server: EmbeddedRedis, template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stack]:
    """An API and a worker that all forgeries go to."""
    database_url = create_database(postgres, "besieged", template)
    redis_url = redis_server.url.rsplit("/", 1)[0] + "/7"
    with Stack(database_url, redis_url, tmp_path_factory.mktemp("besieged")) as stack:
        stack.start("worker")
        stack.start("api")
        yield stack


@pytest.fixture(scope="module")
def worker(besieged: Stack) -> Process:
    """The one worker."""
    return besieged.processes[0]


@pytest.fixture(scope="module")
def broker(besieged: Stack) -> redis.Redis:
    """Redis as whoever broke in sees it."""
    return redis.Redis.from_url(besieged.env["REDIS_URL"])


def serves(stack: Stack) -> bool:
    """Whether a good message is executed."""
    asked = headers(f"shopper-{uuid4()}", Prefer="wait=30")
    return httpx.post(f"{stack.url}/api/sessions", json={"package": "p"}, headers=asked, timeout=60).status_code == 201


def rows(stack: Stack) -> tuple[int, ...]:
    """How many there are."""
    with psycopg.connect(stack.env["DATABASE_URL"].replace("+psycopg", "")) as connection:
        tables = ("checkout_sessions", "session_tasks", "maintenance_runs")
        counts = [connection.execute(f"SELECT count(*) FROM {table}").fetchone() for table in tables]
    return tuple(count[0] for count in counts if count)


@pytest.mark.parametrize("message", FORGED.values(), ids=FORGED)
def test_a_forged_message_is_set_aside(besieged: Stack, worker: Process, broker: redis.Redis, message: bytes) -> None:
    before, said = rows(besieged), worker.log.stat().st_size
    broker.lpush(SESSIONS_QUEUE, message)

    def words() -> str:
        return worker.log.read_bytes()[said:].decode(errors="replace")

    eventually(lambda: "set aside" in words(), "a log line")
    assert rows(besieged) == before
    assert serves(besieged)
    assert worker.running
    assert "Traceback" not in words()
    assert "raised unexpected" not in words()
    assert broker.llen(SESSIONS_QUEUE) == 0


def test_what_a_dead_worker_is_said_to_have_left_is_set_aside_too(
    besieged: Stack, worker: Process, broker: redis.Redis
) -> None:
    """The hash of unacknowledged messages can be written to as well; the oldest come first."""
    left = {"not JSON": b"hello", "of two": b"[1, 2]", "no list": b"{}", "not a message": b'[1, "", "sessions"]'}
    for tag, value in left.items():
        broker.hset("unacked", tag, value)
        broker.zadd("unacked_index", {tag: 1.0})
    eventually(lambda: not set(broker.hkeys("unacked")) & {tag.encode() for tag in left}, "they are gone")
    assert serves(besieged)
    assert worker.running


GOOD = Celery("checkout-sessions", broker="redis://")


@pytest.mark.parametrize(
    ("name", "arguments", "queue"),
    [
        ("sessions.create", [[str(uuid4()) for _ in range(BATCH_LIMIT)]], SESSIONS_QUEUE),
        ("maintenance.expire_sessions", [], MAINTENANCE_QUEUE),
        ("maintenance.delete_sessions", [str(uuid4())], MAINTENANCE_QUEUE),
    ],
)
def test_our_own_messages_have_no_flaw(name: str, arguments: list[Any], queue: str) -> None:
    message = json.loads(envelope(GOOD, name, arguments, queue))
    assert flaw(message, queue) is None
    message["headers"] |= {"expires": "2026-11-24T12:00:00+00:00", "timelimit": [20, None]}  # beat's
    assert flaw(message, queue) is None
    other = next(one for one in TASKS_OF if one != queue)
    assert flaw(message, other) == "unknown task, or not of this queue"


def test_each_task_that_workers_have_is_known(besieged: Stack) -> None:
    """Or it would be set aside."""
    app = Celery(broker=besieged.env["REDIS_URL"], set_as_current=False)

    def registered() -> dict[str, list[str]] | None:
        return app.control.inspect(timeout=2).registered()

    found = eventually(registered, "a worker tells which tasks it has")
    names = {name.partition(" ")[0] for tasks in found.values() for name in tasks}
    assert {name for name in names if not name.startswith("celery.")} == frozenset().union(*TASKS_OF.values())
