"""Ownership a second time, in Postgres: an API without its own checks shows nothing of others, and what is another's
costs the same statements as what never was, so that not even its time tells."""

import json
import sys
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from uuid_utils.compat import uuid7

from tests.api.asking import begin, finished
from tests.api.conftest import Enter, Service
from tests.api.contract import new_user, openapi
from tests.stack import Process, eventually, free_port

CALLS: dict[str, Callable[[httpx.Client, dict[str, str]], httpx.Response]] = {
    "validate": lambda c, ids: c.get(f"/api/sessions/{ids['session']}"),
    "validate one to be": lambda c, ids: c.get(f"/api/sessions/{ids['to_be']}"),
    "history": lambda c, ids: c.get(f"/api/sessions/{ids['session']}/history"),
    "history of one to be": lambda c, ids: c.get(f"/api/sessions/{ids['to_be']}/history"),
    "current": lambda c, _: c.get("/api/sessions/current"),
    "poll": lambda c, ids: c.get(f"/api/tasks/{ids['task']}"),
    "long poll": lambda c, ids: c.get(f"/api/tasks/{ids['task']}?wait=1"),
    "poll a pending one": lambda c, ids: c.get(f"/api/tasks/{ids['pending']}"),
    "long poll a pending one": lambda c, ids: c.get(f"/api/tasks/{ids['pending']}?wait=1"),
    "navigate": lambda c, ids: c.patch(f"/api/sessions/{ids['session']}", json={"step": "stolen"}),
    "validate on the old path": lambda c, ids: c.post(
        "/api/validate-checkout-session", json={"sessionId": ids["session"]}
    ),
}


@pytest.fixture(scope="module")
def unchecked(service: Service) -> Iterator[str]:
    """The URL of an API beside the others, on the same database."""
    port = str(free_port())
    command = [sys.executable, "-m", "tests.api.unchecked"]
    process = Process("unchecked", command, service.stack.env | {"API_PORT": port}, service.stack.folder / "unchecked")
    url = f"http://127.0.0.1:{port}"
    eventually(lambda: httpx.get(f"{url}/readyz").status_code == 200, "the unchecked API answers")
    yield url
    process.kill()


@pytest.fixture
def theirs(service: Service, shopper: httpx.Client, user_id: str) -> dict[str, str]:
    """Somebody's session with its task, and a session to be with its pending task, which nobody executes."""
    session = begin(shopper, data={"cart": "theirs"})
    task = service.one("SELECT id FROM session_tasks WHERE session_id = %s", session["id"])
    other = new_user()
    to_be, pending = str(uuid7()), str(uuid7())
    service.sql.execute(
        """INSERT INTO session_tasks (id, kind, user_id, session_id, payload, due_at)
        VALUES (%s, 'create', %s, %s, '{"package": "theirs"}', 'infinity')""",
        (pending, other, to_be),
    )
    return {"session": session["id"], "task": str(task["id"]), "to_be": to_be, "pending": pending}


@pytest.fixture(autouse=True)
def nothing_pending(service: Service) -> Iterator[None]:
    """Other tests count what is."""
    yield
    service.sql.execute("DELETE FROM session_tasks WHERE due_at = 'infinity'")


def unknown() -> dict[str, str]:
    """Ids of what never was."""
    return {name: str(uuid7()) for name in ("session", "task", "to_be", "pending")}


def told(response: httpx.Response) -> tuple[int, bytes, dict[str, str]]:
    """All that a client can tell two answers by."""
    kept = {name: value for name, value in response.headers.items() if name not in {"date", "x-request-id"}}
    return response.status_code, response.content, kept


def asked_of_postgres(service: Service, response: httpx.Response) -> list[tuple[str, Any]]:
    """The statements of one request, with how many rows each gave, as the API logged them."""
    request_id = response.headers["X-Request-Id"]
    found = [line for process in service.stack.processes for line in process.log.read_text().splitlines()]
    mine = [json.loads(line) for line in found if request_id in line]
    return [(line["operation"], line["rows"]) for line in mine if line["event"] == "database operation"]


@pytest.mark.parametrize("call", CALLS)
def test_an_api_without_its_checks_shows_nothing_of_others(
    service: Service, enter: Enter, unchecked: str, theirs: dict[str, str], call: str
) -> None:
    stranger = enter(url=unchecked)
    answer = CALLS[call](stranger, theirs)
    assert answer.status_code == 404
    assert b"theirs" not in answer.content
    assert told(answer) == told(CALLS[call](stranger, unknown()))
    step = service.one("SELECT step FROM checkout_sessions WHERE id = %s", theirs["session"])
    assert step["step"] is None


def test_each_path_that_shows_something_of_a_user_was_tried() -> None:
    tried = {"/api/sessions/current", "/api/sessions/{session_id}", "/api/sessions/{session_id}/history"}
    others = {"/healthz", "/readyz", "/metrics", "/api/ops", "/api/cleanup-expired-sessions"}  # nobody's, or operators'
    paths = {path for path, methods in openapi()["paths"].items() if "get" in methods}
    assert paths == tried | {"/api/tasks/{task_id}"} | others


def test_an_api_without_its_checks_still_serves_owners(enter: Enter, unchecked: str) -> None:
    owner = enter(url=unchecked)
    session = begin(owner)
    assert owner.get("/api/sessions/current").json()["id"] == session["id"]
    history = owner.get(f"/api/sessions/{session['id']}/history").json()
    assert len(history["tasks"]) == 1
    assert owner.get(f"/api/tasks/{history['tasks'][0]['id']}").json()["result"]["id"] == session["id"]
    assert owner.patch(f"/api/sessions/{session['id']}", json={"step": "mine"}).json()["step"] == "mine"


def test_results_that_are_waited_for_are_ones_own_without_the_checks_too(
    enter: Enter, unchecked: str, theirs: dict[str, str], shopper: httpx.Client
) -> None:
    """Whatever another's id, or their key, is named in."""
    stranger = enter(url=unchecked, Prefer="wait=20", Idempotency_Key="the same")
    key = {"Idempotency-Key": "the same"}
    task = finished(shopper, shopper.post("/api/sessions", json={"package": "theirs"}, headers=key))
    mine = stranger.post("/api/sessions", json={"package": "mine"}).json()
    assert (mine["id"] != task["id"], mine["result"]["package"]) == (True, "mine")
    again = enter(url=unchecked, Prefer="wait=20")
    renewed = again.post(f"/api/sessions/{theirs['session']}/renew", json={"package": "mine"}).json()
    assert (renewed["result"]["package"], renewed["result"]["data"]) == ("mine", {})
    refused = again.post(f"/api/sessions/{theirs['session']}/complete", json={"payment_reference": "mine"})
    assert refused.json()["code"] == "session_not_found"
    assert shopper.get(f"/api/sessions/{theirs['session']}").json()["status"] == "invalidated"  # by its owner's create


def test_without_the_policies_such_an_api_would_show_it(
    service: Service, enter: Enter, unchecked: str, theirs: dict[str, str]
) -> None:
    """So it is the policies that the tests above see at work."""
    stranger = enter(url=unchecked)
    rule = "(user_id = nullif(current_setting('checkout.user_id', true), '')) IS TRUE"
    tables = ("checkout_sessions", "session_tasks")
    try:
        for table in tables:
            service.sql.execute(f"ALTER POLICY checkout_own ON {table} USING (true)")
        assert stranger.get(f"/api/sessions/{theirs['session']}").json()["data"] == {"cart": "theirs"}
        assert stranger.get(f"/api/sessions/{theirs['to_be']}").json()["code"] == "session_pending"
        assert stranger.get(f"/api/tasks/{theirs['task']}").json()["result"]["id"] == theirs["session"]
    finally:
        for table in tables:
            service.sql.execute(f"ALTER POLICY checkout_own ON {table} USING ({rule})")
    assert stranger.get(f"/api/sessions/{theirs['session']}").status_code == 404


@pytest.mark.parametrize("call", CALLS)
def test_anothers_and_an_unknown_one_answer_alike_after_the_same_statements(
    service: Service, enter: Enter, theirs: dict[str, str], call: str
) -> None:
    stranger = enter()
    another, none = CALLS[call](stranger, theirs), CALLS[call](stranger, unknown())
    assert told(another) == told(none)
    asked = asked_of_postgres(service, another)
    assert asked
    assert asked == asked_of_postgres(service, none)
    assert {rows for _, rows in asked if rows is not None} <= {0}
