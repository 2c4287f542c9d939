"""Tasks: polled, waited for, waited for too long."""

import asyncio
import time

import httpx
import pytest
from uuid_utils.compat import uuid7

from tests.api.asking import begin, finished
from tests.api.conftest import Crowd, Enter, Service
from tests.api.contract import ACCEPTED, TASK, assert_problem, new_user


@pytest.fixture
def unserved(enter: Enter, idle: Service, user_id: str) -> httpx.Client:
    """The test's user at a service without workers."""
    return enter(user_id, url=idle.stack.url)


def test_a_pending_task_and_its_session_to_be(unserved: httpx.Client, idle: Service, enter: Enter) -> None:
    accepted = unserved.post("/api/sessions", json={"package": "silver"})
    answer = accepted.json()
    task = unserved.get(accepted.headers["Location"]).json()
    assert task.keys() == TASK
    assert task == {
        "id": answer["task_id"],
        "kind": "create",
        "state": "PENDING",
        "session_id": answer["session_id"],
        "result": None,
        "error": None,
        "accepted_at": task["accepted_at"],
        "finished_at": None,
    }
    path = f"/api/sessions/{answer['session_id']}"
    for response in (unserved.get(path), unserved.patch(path, json={"step": "x"}), unserved.get(f"{path}/history")):
        assert_problem(response, "session_pending", "wait", task_id=answer["task_id"])
        assert response.headers["Retry-After"] == "1"
    stranger = enter(url=idle.stack.url)
    assert_problem(stranger.get(path), "session_not_found")
    assert_problem(stranger.patch(path, json={"step": "x"}), "session_not_found")


def test_other_writes_to_an_unknown_id_are_accepted(unserved: httpx.Client) -> None:
    unknown = str(uuid7())
    for verb, body in (("renew", {"package": "x"}), ("recover", {}), ("complete", {"payment_reference": "p"})):
        accepted = unserved.post(f"/api/sessions/{unknown}/{verb}", json=body)
        assert accepted.status_code == 202
        assert accepted.json()["session_id"] == unknown
        task = unserved.get(accepted.headers["Location"]).json()
        assert (task["kind"], task["state"], task["session_id"]) == (verb, "PENDING", unknown)
    assert_problem(unserved.get(f"/api/sessions/{unknown}"), "session_not_found")


def test_a_wait_that_is_over_answers_202(unserved: httpx.Client) -> None:
    began = time.monotonic()
    response = unserved.post("/api/sessions", json={"package": "silver"}, headers={"Prefer": "wait=1"})
    assert time.monotonic() - began >= 1
    assert (response.status_code, response.json().keys()) == (202, ACCEPTED)
    assert response.headers["Preference-Applied"] == "wait=1"
    assert response.json()["state"] == "PENDING"
    began = time.monotonic()
    task = unserved.get(f"{response.headers['Location']}?wait=1")
    assert time.monotonic() - began >= 1
    assert (task.status_code, task.json()["state"]) == (200, "PENDING")


@pytest.mark.parametrize("wait", ["31", "-1", "1.5", "x", "", "1e1", "999999999999999999999", "%00"])
def test_a_wait_that_cannot_be_is_refused(shopper: httpx.Client, wait: str) -> None:
    session_task = shopper.post("/api/sessions", json={"package": "silver"}).headers["Location"]
    response = shopper.get(f"{session_task}?wait={wait}")
    problem = assert_problem(response, "invalid_request", "fix", errors=response.json()["errors"])
    assert problem["errors"][0]["where"] == "query.wait"
    assert response.status_code == 422


@pytest.mark.parametrize(
    ("prefer", "applied"),
    [
        ("wait=20", "wait=20"),
        ("WAIT=20", "wait=20"),
        ("respond-async, wait=20", "wait=20"),
        ("respond-async;x=1 , wait = 20", "wait=20"),
        ('wait="20"', "wait=20"),
        ("wait=31", "wait=30"),
        ("wait=999999", "wait=30"),
    ],
)
def test_prefer_is_understood_and_bounded(shopper: httpx.Client, prefer: str, applied: str) -> None:
    response = shopper.post("/api/sessions", json={"package": "silver"}, headers={"Prefer": prefer})
    assert (response.status_code, response.headers["Preference-Applied"]) == (201, applied)


@pytest.mark.parametrize("prefer", ["wait", "wait=", "wait=-1", "wait=x", "await=20", "wait=0", "return=minimal", ""])
def test_a_preference_that_cannot_be_honoured_is_ignored(shopper: httpx.Client, prefer: str) -> None:
    response = shopper.post("/api/sessions", json={"package": "silver"}, headers={"Prefer": prefer})
    assert response.status_code == 202
    assert "Preference-Applied" not in response.headers


def test_a_finished_task_never_changes_and_its_result_is_live(shopper: httpx.Client) -> None:
    accepted = shopper.post("/api/sessions", json={"package": "silver"})
    first = finished(shopper, accepted)
    shopper.patch(f"/api/sessions/{first['session_id']}", json={"step": "checkout"})
    newer = begin(shopper)
    later = shopper.get(f"{accepted.headers['Location']}?wait=30").json()
    assert (later["result"]["step"], later["result"]["status"]) == ("checkout", "invalidated")
    assert later["result"]["successor_id"] == newer["id"]
    assert {**later, "result": None} == {**first, "result": None}


async def poll_at_once(crowd: Crowd, idle: Service) -> list[httpx.Response]:
    """Many long-polls of one task, begun before it is finished."""
    async with crowd(new_user(), url=idle.stack.url) as client:
        accepted = await client.post("/api/sessions", json={"package": "silver"})
        polls = [asyncio.create_task(client.get(f"{accepted.headers['Location']}?wait=30")) for _ in range(50)]
        await client.get("/healthz")
        assert not any(poll.done() for poll in polls)
        await asyncio.to_thread(idle.finish_all)
        return await asyncio.gather(*polls)


def test_a_long_poll_answers_when_the_task_is_finished(crowd: Crowd, idle: Service) -> None:
    answers = asyncio.run(poll_at_once(crowd, idle))
    assert {answer.json()["state"] for answer in answers} == {"FAILURE"}
    assert len({answer.json()["finished_at"] for answer in answers}) == 1


def test_a_long_poll_hears_from_the_worker(shopper: httpx.Client) -> None:
    accepted = shopper.post("/api/sessions", json={"package": "silver"})
    assert shopper.get(f"{accepted.headers['Location']}?wait=30").json()["state"] == "SUCCESS"


def test_an_unknown_task_and_anothers_cannot_be_told_apart(shopper: httpx.Client, enter: Enter) -> None:
    accepted = shopper.post("/api/sessions", json={"package": "silver"})
    stranger = enter()
    for query in ("", "?wait=1"):
        answers = [stranger.get(f"{path}{query}") for path in (accepted.headers["Location"], f"/api/tasks/{uuid7()}")]
        assert_problem(answers[0], "task_not_found", "restart")
        assert answers[0].content == answers[1].content
