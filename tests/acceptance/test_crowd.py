"""Many requests at once through the real API and two real worker processes."""

import asyncio
import json
import random
from collections import Counter
from typing import Any

import pytest
from psycopg import Connection

from tests.acceptance.conftest import Measure
from tests.stack import Stack, eventually, headers

pytestmark = pytest.mark.acceptance

CROWD = 500


async def create(port: int, number: int) -> tuple[int, dict[str, Any]]:
    """One create on a connection of its own: status and answer. (httpx takes half a minute for this many.)"""
    body = json.dumps({"package": str(number)})
    lines = {
        **headers("crowd"),
        "Host": "localhost",
        "Connection": "close",
        "Content-Type": "application/json",
        "Content-Length": str(len(body)),
    }
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    request = ["POST /api/sessions HTTP/1.1", *(f"{name}: {value}" for name, value in lines.items()), "", body]
    writer.write("\r\n".join(request).encode())
    head, _, answer = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    return int(head.split()[1]), json.loads(answer)


async def create_all(port: int) -> list[tuple[int, dict[str, Any]]]:
    """All at once."""
    return await asyncio.gather(*(create(port, number) for number in range(CROWD)))


def test_of_500_concurrent_creates_of_one_user_one_session_is_active_and_none_failed(
    stack: Stack, connection: Connection[Any], measured: Measure
) -> None:
    for name in ("api", "worker", "worker"):
        stack.start(name)
    with measured("500 concurrent creates, until all are accepted"):
        answers = asyncio.run(create_all(stack.api_port))
    assert Counter(status for status, _ in answers) == {202: CROWD}
    with measured("until all are finished"):
        pending = "SELECT count(*) FROM session_tasks WHERE state = 'PENDING'"
        eventually(lambda: connection.execute(pending).fetchone() == (0,))
    states = connection.execute("SELECT state, count(*) FROM session_tasks GROUP BY 1").fetchall()
    assert states == [("SUCCESS", CROWD)]
    statuses = connection.execute("SELECT status, count(*) FROM checkout_sessions GROUP BY 1 ORDER BY 1").fetchall()
    assert statuses == [("active", 1), ("invalidated", CROWD - 1)]
    ids = [answer["session_id"] for _, answer in answers]
    assert len(set(ids)) == CROWD
    with stack.client("crowd") as client:
        active = client.get("/api/sessions/current").json()
        assert active["id"] in ids
        for session_id in random.sample(sorted(set(ids) - {active["id"]}), 5):
            old = client.get(f"/api/sessions/{session_id}").json()
            assert (old["status"], old["successor_id"]) == ("invalidated", active["id"])


def test_malformed_messages_are_set_aside_and_hinder_nobody(stack: Stack) -> None:
    from workers.configuration import WORKER_TRANSPORT, create_app
    from workers.settings import WorkerSettings

    stack.start("api")
    worker = stack.start("worker")
    settings = WorkerSettings(database_url=stack.env["DATABASE_URL"], redis_url=stack.env["REDIS_URL"])
    malformed: list[Any] = ["text", 7, None, {"a": 1}, [1, 2], ["no id"], [[]], [None]]
    with create_app(settings, WORKER_TRANSPORT) as app:
        for argument in malformed:
            app.send_task("sessions.create", args=[argument])
        for wrong in ([], [[], []]):
            app.send_task("sessions.create", args=wrong)
        app.send_task("sessions.unheard_of", args=[[]])
    with stack.client("shopper", Prefer="wait=30") as client:
        assert client.post("/api/sessions", json={"package": "gold"}).status_code == 201
    forged, unread = (
        ("forged message set aside", 7),
        ("malformed doorbell set aside", 4),
    )  # by their form, and by the ids
    for line, count in (forged, unread):
        eventually(lambda line=line, count=count: worker.log.read_text().count(line) == count, line)
    assert worker.running
