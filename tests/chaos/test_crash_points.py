"""Stop a worker, or the API, between every two of its steps: the final state is the same each time."""

import itertools
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import psycopg
import pytest
from psycopg.types.json import Jsonb
from uuid_utils.compat import uuid7

from db.lifecycle import Kind
from local.servers import EmbeddedPostgres, EmbeddedRedis
from tests.chaos.crash import API_POINTS, WORKER_POINTS, Points
from tests.conftest import create_database
from tests.stack import COMMANDS, Process, Stack, eventually
from workers import doorbell
from workers.configuration import create_app
from workers.settings import WorkerSettings

_numbers = itertools.count()

Connection = psycopg.Connection[tuple[Any, ...]]


class Scene:
    """A worker that crashes where it is told to, a healthy one on another Redis, and shoppers."""

    def __init__(self, stack: Stack, healthy: Stack, folder: Path) -> None:
        self.stack = stack
        self.healthy = healthy
        self.points = Points(folder)
        self.connection: Connection = psycopg.connect(
            stack.env["DATABASE_URL"].replace("+psycopg", ""), autocommit=True
        )
        self.bells = [create_app(_settings(one), {"socket_timeout": 5}) for one in (stack, healthy)]
        self.crasher: Process | None = None

    def start(self, name: str) -> Process:
        """Start a process whose steps are wrapped."""
        words = COMMANDS[name].format(n=next(_numbers), folder=self.stack.folder, port=0).split()
        argv = [sys.executable, "-m", "tests.chaos.crash", str(self.points.armed.parent), *words[1:]]
        process = Process(name, argv, self.stack.env, self.stack.folder / f"{name}-{next(_numbers)}.log")
        self.stack.processes.append(process)
        return process

    def accept(self, user: str, kind: str, session_id: UUID, **payload: Any) -> UUID:
        """Accept a task, as the API does, without ringing."""
        task_id: UUID = uuid7()
        self.connection.execute(
            "INSERT INTO session_tasks (id, kind, user_id, session_id, payload, due_at) "
            "VALUES (%s, %s, %s, %s, %s, now() + interval '1 hour')",
            (task_id, kind, user, session_id, Jsonb(payload)),
        )
        return task_id

    def ring(self, *tasks: tuple[UUID, str], healthy: bool) -> None:
        """Ring for tasks, one message each kind, at one of the two workers."""
        assert doorbell.ring(self.bells[healthy], [(task_id, Kind(kind)) for task_id, kind in tasks])

    def finished(self, *task_ids: UUID) -> None:
        """Wait until these are."""
        query = "SELECT count(*) FROM session_tasks WHERE id = ANY(%s) AND state = 'PENDING'"
        eventually(lambda: self._one(query, list(task_ids)) == 0, f"{len(task_ids)} tasks are finished")

    def state(self, user: str) -> tuple[Any, ...]:
        """A user's sessions and outcomes, without ids and times."""
        sessions = self.connection.execute(
            "SELECT id, status, package, origin, line_position, payment_reference, previous_session_id, data "
            "FROM checkout_sessions WHERE user_id = %s ORDER BY id",
            [user],
        ).fetchall()
        places = {row[0]: place for place, row in enumerate(sessions)}
        tasks = self.connection.execute(
            "SELECT kind, state, refusal, result_session_id FROM session_tasks WHERE user_id = %s ORDER BY seq", [user]
        ).fetchall()
        return (
            [(*row[1:5], row[5] and row[5].split("/")[1], places.get(row[6]), row[7]) for row in sessions],
            [(*row[:3], places[row[3]]) for row in tasks],
        )

    def _one(self, query: str, *parameters: Any) -> Any:
        row = self.connection.execute(query, parameters).fetchone()
        assert row is not None
        return row[0]

    def shopper(self, kind: str) -> tuple[str, list[tuple[UUID, str]]]:
        """A shopper with a past, who has asked for `kind` and then for another package."""
        user = f"{kind}-{next(_numbers)}"
        first: UUID = uuid7()
        begin = self.accept(user, "create", first, package="silver", data={"seats": 2})
        self.ring((begin, "create"), healthy=True)
        self.finished(begin)
        if kind == "recover":
            self.connection.execute(
                "UPDATE checkout_sessions SET created_at = created_at - interval '25 h', expires_at = now() "
                "WHERE id = %s",
                [first],
            )
        addressed = uuid7() if kind == "create" else first
        payload = {
            "create": {"package": "gold"},
            "renew": {"package": "gold"},
            "recover": {},
            "complete": {"payment_reference": f"{user}/paid"},
        }[kind]
        asked = self.accept(user, kind, addressed, **payload)
        then = self.accept(user, "renew", first, package="platinum", data={"seats": 3})
        return user, [(asked, kind), (then, "renew")]


def _settings(stack: Stack) -> WorkerSettings:
    return WorkerSettings(database_url=stack.env["DATABASE_URL"], redis_url=stack.env["REDIS_URL"])


@pytest.fixture(scope="module")
def scene(postgres: EmbeddedPostgres, template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """One for all points: each takes shoppers of its own."""
    folder = tmp_path_factory.mktemp("crash")
    url = create_database(postgres, "crash_points", template)
    with EmbeddedRedis(folder) as server:
        crashing = Stack(url, server.url, folder)
        healthy = Stack(url, server.url.rsplit("/", 1)[0] + "/1", folder)
        with crashing, healthy:
            healthy.start("worker")
            healthy.start("api", ready=False)
            scene = Scene(crashing, healthy, folder)
            yield scene
            scene.connection.close()


@pytest.fixture(scope="module")
def expected(scene: Scene) -> dict[str, tuple[Any, ...]]:
    """The final states where nothing crashes."""
    states = {}
    for kind in Kind:
        user, tasks = scene.shopper(kind)
        scene.ring(*tasks, healthy=True)
        scene.finished(*(task_id for task_id, _ in tasks))
        states[str(kind)] = scene.state(user)
    return states


@pytest.mark.parametrize("point", WORKER_POINTS)
def test_a_worker_that_is_killed_loses_and_doubles_nothing(
    scene: Scene, expected: dict[str, tuple[Any, ...]], point: str
) -> None:
    """Another delivers what it left: out of order, twice, and once more when all is done."""
    kinds = list(Kind)
    shoppers = {kind: scene.shopper(kind) for kind in kinds}
    asked = [tasks[0] for _, tasks in shoppers.values()]
    later = [tasks[1] for _, tasks in shoppers.values()]
    if scene.crasher is None or not scene.crasher.running:
        scene.crasher = scene.start("worker")
    scene.points.arm(point, whole=True)
    scene.ring(*asked, healthy=False)
    eventually(lambda: not scene.crasher.running, f"the worker dies {point}")
    for tasks in (later, reversed(asked), asked):
        scene.ring(*tasks, healthy=True)
    scene.finished(*(task_id for task_id, _ in asked + later))
    states = {kind: scene.state(user) for kind, (user, _) in shoppers.items()}
    assert states == expected, point
    _, marker = scene.shopper("create")
    scene.ring(*later, *asked, *marker, healthy=True)
    scene.finished(*(task_id for task_id, _ in marker))
    assert {kind: scene.state(user) for kind, (user, _) in shoppers.items()} == expected, point


@pytest.mark.parametrize("point", API_POINTS)
def test_an_api_that_is_killed_accepts_once(scene: Scene, point: str) -> None:
    """The client repeats under its key, and finds the one task that the first attempt made, if it did."""
    user = f"{point}-{next(_numbers)}"
    create = {"url": "/api/sessions", "json": {"package": "gold"}, "headers": {"Idempotency-Key": "once"}}
    dying = scene.start("api")
    with scene.stack.client(user) as client:
        eventually(lambda: client.get("/healthz").status_code == 200)
        scene.points.arm(point, whole=True)
        answers = []
        with suppress(httpx.TransportError):
            answers.append(client.post(**create))
        try:
            eventually(lambda: not dying.running, f"the API dies {point}")
        finally:
            dying.kill()
    assert len(answers) == 0 or point == "rung"  # there the answer runs against the doorbell
    made = scene.connection.execute("SELECT id FROM session_tasks WHERE user_id = %s", [user]).fetchall()
    assert len(made) == (0 if point == "accepting" else 1)
    with scene.healthy.client(user) as client:
        eventually(lambda: client.get("/healthz").status_code == 200)
        answers += [client.post(**create) for _ in range(2)]
    ids = {UUID(answer.json()["task_id"]) for answer in answers}
    assert len(ids) == 1
    assert {row[0] for row in made} <= ids
    scene.ring(*((task_id, "create") for task_id in ids), healthy=True)
    scene.finished(*ids)
    sessions, tasks = scene.state(user)
    assert [row[0] for row in sessions] == ["active"]
    assert tasks == [("create", "SUCCESS", None, 0)]
