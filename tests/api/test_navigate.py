"""PATCH: the one synchronous write."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import psycopg
import pytest
from uuid_utils.compat import uuid7

from tests.api.asking import begin, finished, statuses
from tests.api.conftest import Crowd, Enter, Service
from tests.api.contract import SESSION, assert_old_refusal, assert_problem
from tests.stack import eventually


def test_it_moves_the_step_and_merges_the_top_level_of_data(shopper: httpx.Client) -> None:
    session = begin(shopper, step="add", data={"seats": 2, "voucher": "x", "address": {"city": "Ulm", "zip": "1"}})
    path = f"/api/sessions/{session['id']}"
    response = shopper.patch(path, json={"step": "packages", "data": {"voucher": None, "address": {"city": "Bonn"}}})
    assert response.status_code == 200
    changed = response.json()
    assert changed.keys() == SESSION
    assert (changed["step"], changed["data"]) == ("packages", {"seats": 2, "address": {"city": "Bonn"}})
    assert changed["updated_at"] > session["updated_at"]
    kept = SESSION - {"step", "data", "updated_at", "seconds_left"}
    assert {key: changed[key] for key in kept} == {key: session[key] for key in kept}
    assert shopper.get(path).json()["data"] == changed["data"]


@pytest.mark.parametrize("body", [{}, {"step": None}, {"data": {}}, {"data": {"never": None}}, {"data": None}])
def test_nothing_given_changes_nothing(shopper: httpx.Client, body: dict[str, Any]) -> None:
    session = begin(shopper, step="add", data={"seats": 2})
    changed = shopper.patch(f"/api/sessions/{session['id']}", json=body).json()
    assert (changed["step"], changed["data"]) == ("add", {"seats": 2})


def test_what_is_not_active_is_not_changed(patient: httpx.Client, service: Service) -> None:
    first = begin(patient, step="add", data={"seats": 2})
    second = begin(patient, step="add")
    patch = {"step": "checkout", "data": {"seats": 3}}
    response = patient.patch(f"/api/sessions/{first['id']}", json=patch)
    problem = assert_problem(response, "session_not_active", "recover", successor_id=second["id"])
    assert problem["detail"] == "The session is invalidated."
    service.age(second["id"], 2)
    response = patient.patch(f"/api/sessions/{second['id']}", json=patch)
    assert assert_problem(response, "session_not_active", "recover", successor_id=None)["detail"].endswith("expired.")
    third = begin(patient, step="add")
    patient.post(f"/api/sessions/{third['id']}/complete", json={"payment_reference": third["id"]})
    response = patient.patch(f"/api/sessions/{third['id']}", json=patch)
    assert_problem(response, "session_not_active", "done", successor_id=None)
    for session in (first, second, third):
        assert patient.get(f"/api/sessions/{session['id']}").json()["step"] == "add"


def test_what_does_not_exist_or_is_anothers_cannot_be_told_apart(shopper: httpx.Client, enter: Enter) -> None:
    session = begin(shopper)
    stranger = enter()
    answers = [
        stranger.patch(f"/api/sessions/{session_id}", json={"step": "x"}) for session_id in (session["id"], uuid7())
    ]
    assert_problem(answers[0], "session_not_found")
    assert answers[0].content == answers[1].content
    assert shopper.get(f"/api/sessions/{session['id']}").json()["step"] is None


def test_data_may_not_grow_without_bound(shopper: httpx.Client) -> None:
    session = begin(shopper, data={"one": "x" * 40_000})
    path = f"/api/sessions/{session['id']}"
    assert_problem(shopper.patch(path, json={"data": {"two": "y" * 40_000}}), "data_too_large", "fix")
    assert shopper.get(path).json()["data"].keys() == {"one"}
    assert shopper.patch(path, json={"data": {"one": None, "two": "y" * 40_000}}).json()["data"].keys() == {"two"}


def test_nor_may_it_by_renewals(patient: httpx.Client, service: Service) -> None:
    session = begin(patient, data={"one": "é" * 20_000})
    path = f"/api/sessions/{session['id']}"
    refused = patient.post(f"{path}/renew", json={"package": "gold", "data": {"two": "y" * 40_000}})
    task_id = refused.headers["Location"].rpartition("/")[2]
    assert_problem(refused, "data_too_large", "fix", task_id=task_id, session_id=session["id"])
    assert patient.get(path).json()["status"] == "active"
    renewed = patient.post(f"{path}/renew", json={"package": "gold", "data": {"two": "y" * 20_000}})
    assert renewed.json()["result"]["data"].keys() == {"one", "two"}
    old = {"packageId": "ruby", "existingSessionId": session["id"], "data": {"three": "z" * 20_000}}
    assert_old_refusal(patient.post("/api/create-checkout-session", json=old), "data_too_large")


async def patch_all(crowd: Crowd, user_id: str, path: str, bodies: list[dict[str, Any]]) -> None:
    """All of them at once; who hears that the service is busy comes again, as clients do."""

    async def patch(client: httpx.AsyncClient, body: dict[str, Any]) -> None:
        for _ in range(300):
            response = await client.patch(path, json=body)
            if response.status_code != 503:
                break
            await asyncio.sleep(0.1)
        assert response.status_code == 200
        assert response.json()["data"].keys() >= body["data"].keys()

    async with crowd(user_id) as client, asyncio.TaskGroup() as group:
        for body in bodies:
            group.create_task(patch(client, body))


def test_of_concurrent_changes_none_is_lost(shopper: httpx.Client, crowd: Crowd, user_id: str) -> None:
    path = f"/api/sessions/{begin(shopper)['id']}"
    bodies = [{"step": f"step-{n}", "data": {f"key-{n}": n}} for n in range(100)]
    asyncio.run(patch_all(crowd, user_id, path, bodies))
    after = shopper.get(path).json()
    assert after["data"] == {f"key-{n}": n for n in range(100)}
    assert after["step"] in {body["step"] for body in bodies}


def test_a_change_that_waited_for_a_renewal_names_the_successor(
    shopper: httpx.Client, user_id: str, service: Service
) -> None:
    """Step by step: the renewal has written and not committed, the change waits for it, the renewal commits."""
    session, successor = begin(shopper), str(uuid7())
    connection = psycopg.connect(service.sql.info.dsn, password=service.sql.info.password)
    with ThreadPoolExecutor(1) as threads, connection as renewal:
        renewal.execute("UPDATE checkout_sessions SET status = 'invalidated' WHERE id = %s", [session["id"]])
        renewal.execute(
            """INSERT INTO checkout_sessions (id, user_id, status, package, origin, line_id, line_position,
            line_began_at, previous_session_id, expires_at)
            SELECT %s, user_id, 'active', 'gold', 'renewed', line_id, 1, line_began_at, id, expires_at
            FROM checkout_sessions WHERE id = %s""",
            [successor, session["id"]],
        )
        change = threads.submit(shopper.patch, f"/api/sessions/{session['id']}", json={"step": "x"})
        eventually(lambda: service.waits_for_a_lock() or change.done(), "the change waits")
        renewal.commit()
        assert_problem(change.result(), "session_not_active", "recover", successor_id=successor)


async def patch_while_renewing(crowd: Crowd, user_id: str, path: str) -> tuple[list[httpx.Response], httpx.Response]:
    """Twenty changes, and in the middle of them a renewal."""
    async with crowd(user_id) as client:
        bodies = [{"data": {f"key-{n}": n}} for n in range(20)]
        patches = [asyncio.create_task(client.patch(path, json=body)) for body in bodies[:10]]
        renewal = asyncio.create_task(client.post(f"{path}/renew", json={"package": "gold"}))
        patches += [asyncio.create_task(client.patch(path, json=body)) for body in bodies[10:]]
        return await asyncio.gather(*patches), await renewal


def test_a_change_that_was_confirmed_is_in_the_renewed_session(
    shopper: httpx.Client, crowd: Crowd, user_id: str
) -> None:
    session = begin(shopper)
    answers, renewal = asyncio.run(patch_while_renewing(crowd, user_id, f"/api/sessions/{session['id']}"))
    new = finished(shopper, renewal)["result"]
    assert statuses(answers) <= {200, 409}
    confirmed = {f"key-{n}" for n, answer in enumerate(answers) if answer.status_code == 200}
    assert new["data"].keys() == confirmed
    for answer in answers:
        if answer.status_code == 409:
            assert_problem(answer, "session_not_active", "recover", successor_id=new["id"])
