"""One whole life, and then a search for what must be nowhere: ids only in logs, in Redis and in Flower."""

import json
import threading
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
import redis

from local.servers import EmbeddedPostgres, EmbeddedRedis
from tests.conftest import create_database
from tests.stack import SECRET, Stack, eventually, token

CART, PAYMENT, PACKAGE, STEP = "cart-7f3a9c", "payment-5d1e8b", "package-2b6f4d", "step-9e4c7a"
BYE = "bye-4d7e2f"
OPERATOR = ("operator", "flower-password-8c2d5e")
DOORS = [
    ("GET", "/"), ("GET", "/workers"), ("GET", "/tasks"), ("GET", "/broker"), ("GET", "/api/workers"),
    ("GET", "/api/tasks"), ("GET", "/api/queues/length"), ("GET", "/api/task/types"), ("GET", "/metrics"),
    ("POST", "/api/worker/shutdown/x"), ("POST", "/api/worker/pool/restart/x"), ("POST", "/api/worker/pool/grow/x"),
    ("POST", "/api/worker/queue/cancel-consumer/x"), ("POST", "/api/task/async-apply/sessions.create"),
    ("POST", "/api/task/send-task/sessions.create"), ("POST", "/api/task/revoke/x"), ("POST", "/api/task/abort/x"),
    ("POST", "/api/task/rate-limit/sessions.create"), ("POST", "/api/task/timeout/sessions.create"),
]  # fmt: skip
OPEN = {"/metrics"}  # Flower's own, which has figures only


class Listener:
    """Hears every command that Redis is sent."""

    def __init__(self, url: str) -> None:
        self.heard: list[str] = []
        self._client = redis.Redis.from_url(url)
        self._monitor = self._client.monitor()
        self._thread = threading.Thread(target=self._listen, daemon=True)

    def __enter__(self) -> "Listener":
        self._monitor.__enter__()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._client.execute_command("ECHO", BYE)
        self._thread.join(30)
        self._monitor.__exit__(None, None, None)
        self._client.close()

    def _listen(self) -> None:
        while not self.heard or BYE not in self.heard[-1]:
            self.heard.append(self._monitor.next_command()["command"])


@pytest.fixture(scope="module")
def watched(
    postgres: EmbeddedPostgres, redis_server: EmbeddedRedis, template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stack]:
    """All processes, with Flower locked."""
    database_url = create_database(postgres, "watched", template)
    redis_url = redis_server.url.rsplit("/", 1)[0] + "/6"
    folder = tmp_path_factory.mktemp("watched")
    with Stack(database_url, redis_url, folder, FLOWER_BASIC_AUTH=":".join(OPERATOR)) as stack:
        stack.start_all().start("flower")
        url = f"http://127.0.0.1:{stack.flower_port}/healthcheck"
        eventually(lambda: httpx.get(url).status_code == 200, "Flower answers")
        yield stack


def live(stack: Stack, bearer: str) -> dict[str, Any]:
    """Everything that a shopper can do, some of it wrong."""
    asked = {"Authorization": f"Bearer {bearer}", "Prefer": "wait=30"}
    with httpx.Client(base_url=stack.url, headers=asked, timeout=60) as client:
        cart = {"note": CART}
        session = client.post("/api/sessions", json={"package": PACKAGE, "step": STEP, "data": cart}).json()["result"]
        path = f"/api/sessions/{session['id']}"
        assert client.patch(path, json={"data": {"more": CART}}).status_code == 200
        renewed = client.post(f"{path}/renew", json={"package": PACKAGE, "data": cart}).json()["result"]
        path = f"/api/sessions/{renewed['id']}"
        for wrong in ({"package": 1, "data": cart}, {"data": {"n": "\0" + CART}}, {"package": PACKAGE, CART: 1}):
            assert client.post("/api/sessions", json=wrong).status_code == 422
        client.post(
            "/api/sessions", content=f'{{"data": "{CART}'.encode(), headers={"Content-Type": "application/json"}
        )
        assert client.get(path, headers={"Authorization": f"Bearer {bearer}x"}).status_code == 401
        assert client.post(f"{path}/complete", json={"payment_reference": PAYMENT}).status_code == 200
        assert client.post(f"{path}/complete", json={"payment_reference": f"{PAYMENT}-2"}).status_code == 409
        client.get(f"{path}/history")
        return dict(renewed)


def test_what_is_secret_or_a_shoppers_is_nowhere(watched: Stack) -> None:
    bearer, redis_url = token("shopper-secrecy"), watched.env["REDIS_URL"]
    flower_url = f"http://127.0.0.1:{watched.flower_port}"
    with Listener(redis_url) as listener, httpx.Client(base_url=flower_url, auth=OPERATOR, timeout=30) as flower:
        session = live(watched, bearer)

        def shown() -> str:
            found = flower.get("/api/tasks").text
            return found if found.count("sessions.") >= 3 else ""

        tasks = eventually(shown, "Flower knows the tasks")
        pages = [flower.get(path).text for path in ("/", "/workers?json=1", "/broker", "/api/workers?refresh=1")]
        pages += [flower.get(f"/api/task/info/{one}").text for one in json.loads(tasks)]
    logs = {process.log.name: process.log.read_text(errors="replace") for process in watched.processes}
    everywhere = {**logs, "Redis": "\n".join(listener.heard), "Flower": "\n".join([tasks, *pages])}
    passwords = [urlsplit(url).password for url in (watched.env["DATABASE_URL"], redis_url)]
    secrets = {
        "token": bearer, "its signature": bearer.rpartition(".")[2], "JWT secret": SECRET, "cart": CART,
        "payment": PAYMENT, "Flower's password": OPERATOR[1],
        **{f"password {n}": password for n, password in enumerate(passwords)},
    }  # fmt: skip
    found = [(where, what) for where, text in everywhere.items() for what, secret in secrets.items() if secret in text]
    assert found == []
    assert session["id"] in "".join(logs.values()), "ids are there, or this would search in nothing"
    assert len(listener.heard) > 10
    assert "sessions.create" in everywhere["Redis"]


@pytest.mark.parametrize("auth", [None, ("operator", "guess"), ("operator", "")])
def test_flower_opens_no_door_without_the_password(watched: Stack, auth: tuple[str, str] | None) -> None:
    with httpx.Client(base_url=f"http://127.0.0.1:{watched.flower_port}", auth=auth, timeout=30) as client:
        seen = {(method, path): client.request(method, path).status_code for method, path in DOORS if path not in OPEN}
    assert set(seen.values()) == {401}, seen
    assert watched.processes[1].running
