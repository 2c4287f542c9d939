"""A worker at the door: takes what waits and what comes, together, tells Flower, and leaves in time."""

import threading
import time
from collections.abc import Iterator
from typing import Any
from uuid import UUID, uuid4

import pytest
import redis
from celery.worker import state

from local.embedded import free_port
from tests.acceptance.test_forged import FORGED
from workers import door
from workers.configuration import create_app
from workers.door import TOGETHER, Door
from workers.envelope import envelope
from workers.messages import SESSIONS_QUEUE
from workers.settings import WorkerSettings


class Consumer:
    """Stands for Celery's, whose events it keeps."""

    def __init__(self) -> None:
        self.event_dispatcher: Any = self
        self.events: list[tuple[str, dict[str, Any]]] = []

    def send(self, event: str, **fields: Any) -> None:
        self.events.append((event, fields))


class Scene:
    """A door on a real Redis, and who knocks."""

    def __init__(self, url: str) -> None:
        self.client = redis.Redis.from_url(url)
        self.client.delete(SESSIONS_QUEUE)
        self.consumer = Consumer()
        self.door = Door(self.client, SESSIONS_QUEUE, self.consumer)
        settings = WorkerSettings(database_url="postgresql://n@localhost/n", redis_url=url)  # type: ignore[arg-type]
        self._app = create_app(settings, {})
        self.answered: list[tuple[list[UUID], bool]] = []

    def knock(self, *ids: UUID) -> None:
        """Send one doorbell."""
        message = envelope(self._app, "sessions.create", [[str(task_id) for task_id in ids]], SESSIONS_QUEUE)
        self.client.lpush(SESSIONS_QUEUE, message)

    def execute(self, ids: list[UUID], _: str, redelivered: bool) -> str:
        """Keep what is to be executed."""
        self.answered.append((ids, redelivered))
        return "done"

    def linger(self) -> list[list[UUID]]:
        """Stay at the door; returns the ids that were executed together."""
        self.door.linger(self.execute)
        return [ids for ids, _ in self.answered]


@pytest.fixture
def scene(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    """With an hour for a shift: no test depends on the clock."""
    monkeypatch.setattr(door, "SHIFT_SECONDS", 3600)
    scene = Scene(redis_url)
    with scene.client:
        yield scene


def test_what_waits_is_answered_together_oldest_first_and_then_the_worker_goes(scene: Scene) -> None:
    ids = [uuid4() for _ in range(2 * TOGETHER + 1)]
    for task_id in ids:
        scene.knock(task_id)
    assert scene.linger() == [ids[:TOGETHER], ids[TOGETHER : 2 * TOGETHER], ids[2 * TOGETHER :]]
    assert scene.client.llen(SESSIONS_QUEUE) == 0


def test_what_comes_while_the_worker_lingers_is_answered(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "LINGER_SECONDS", 30)
    late = uuid4()
    knocking = threading.Timer(0.05, scene.knock, [late])
    knocking.start()

    def answer_and_stop(ids: list[UUID], *_: Any) -> None:
        scene.execute(ids, "", False)
        monkeypatch.setattr(state, "should_stop", 0)

    scene.door.linger(answer_and_stop)
    knocking.join()
    assert scene.answered == [([late], False)]


def test_the_shift_ends_however_many_come(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "SHIFT_SECONDS", 0.2)
    scene.knock(uuid4())

    def busy(*_: Any) -> None:
        scene.knock(uuid4())
        time.sleep(0.01)

    scene.door.linger(busy)
    assert scene.client.llen(SESSIONS_QUEUE) == 1


@pytest.mark.parametrize("asked", ["should_stop", "should_terminate"])
def test_a_worker_that_is_to_stop_takes_nothing_more(scene: Scene, monkeypatch: pytest.MonkeyPatch, asked: str) -> None:
    scene.knock(uuid4())
    monkeypatch.setattr(state, asked, 0)  # the exit status
    assert scene.linger() == []
    assert scene.client.llen(SESSIONS_QUEUE) == 1


def test_flower_is_told_as_of_any_task(scene: Scene) -> None:
    ids = [uuid4(), uuid4()]
    for task_id in ids:
        scene.knock(task_id)
    scene.linger()
    events = scene.consumer.events
    assert [event for event, _ in events] == ["task-received", "task-started", "task-succeeded"] * 2
    assert len({fields["uuid"] for _, fields in events}) == 2
    for n, task_id in enumerate(ids):
        received, _, succeeded = (fields for _, fields in events[3 * n : 3 * n + 3])
        assert received["name"] == "sessions.create"
        assert str(task_id) in received["args"]
        assert succeeded["result"] == "'done'"
        assert succeeded["runtime"] >= 0


def test_a_failure_is_shown_and_ends_the_shift(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "TOGETHER", 1)
    scene.knock(uuid4())
    scene.knock(uuid4())

    def fail(*_: Any) -> None:
        raise LookupError("no")

    scene.door.linger(fail)  # the task at whose end it lingers is done, whatever comes of these
    assert [event for event, _ in scene.consumer.events] == ["task-received", "task-started", "task-failed"]
    assert scene.client.llen(SESSIONS_QUEUE) == 1, "Celery's, which waits longer between tries"


def test_what_was_delivered_before_is_known_by_it(scene: Scene) -> None:
    scene.knock(uuid4())
    raw = scene.client.rpop(SESSIONS_QUEUE)
    assert isinstance(raw, bytes)
    scene.client.lpush(SESSIONS_QUEUE, raw.replace(b'"exchange":""', b'"redelivered":true,"exchange":""'))
    scene.linger()
    assert [redelivered for _, redelivered in scene.answered] == [True]


@pytest.mark.parametrize("message", FORGED.values(), ids=FORGED)
def test_a_forged_message_spoils_nothing(scene: Scene, message: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    good = uuid4()
    scene.client.lpush(SESSIONS_QUEUE, message)
    scene.knock(good)
    assert scene.linger() == [[good]]


def test_without_redis_the_worker_goes_back_to_celery() -> None:
    scene = object.__new__(Scene)
    scene.client = redis.Redis(port=free_port(), socket_connect_timeout=0.2)
    scene.answered = []
    scene.door = Door(scene.client, SESSIONS_QUEUE, Consumer())
    assert scene.linger() == []
