"""The same key and body give the same task, however often and wherever it is asked."""

import asyncio
import random
from collections import Counter
from typing import Any

import httpx
import pytest
from uuid_utils.compat import uuid7

from tests.api.asking import begin, burst, finished, posted
from tests.api.conftest import Enter, Service
from tests.api.contract import assert_problem, new_user
from tests.stack import headers

BODY = {"package": "silver", "step": "add", "data": {"seats": 2, "colour": "red"}}


def test_a_repeat_gives_the_same_task_before_and_after_it_is_finished(shopper: httpx.Client) -> None:
    key = {"Idempotency-Key": "k"}
    first = shopper.post("/api/sessions", json=BODY, headers=key)
    task = finished(shopper, first)
    repeat = shopper.post("/api/sessions", json=BODY, headers=key)
    assert (repeat.status_code, repeat.headers["Location"]) == (202, first.headers["Location"])
    assert repeat.json() == {**first.json(), "state": "SUCCESS"}
    waited = shopper.post("/api/sessions", json=BODY, headers={**key, "Prefer": "wait=20"})
    assert waited.status_code == 201
    assert {**waited.json(), "result": None} == {**task, "result": None}
    assert waited.json()["result"]["id"] == first.json()["session_id"]


def test_bodies_that_mean_the_same_are_the_same(shopper: httpx.Client, user_id: str) -> None:
    headers = {"Idempotency-Key": "k", "Content-Type": "application/json"}
    first, *others = (
        shopper.post("/api/sessions", content=content, headers=headers)
        for content in (
            '{"package": "silver", "data": {"a": 1, "b": 2}}',
            '{"data":{"b":2,"a":1},"package":"silver"}',
            '{"package": "silver", "step": null, "data": {"a": 1, "b": 2}}',
            f'{{"package": "silver", "user_id": "{user_id}", "data": {{"a": 1, "b": 2}}}}',
        )
    )
    assert {response.json()["task_id"] for response in others} == {first.json()["task_id"]}


def test_another_body_kind_or_session_under_the_key_is_refused(shopper: httpx.Client) -> None:
    session = begin(shopper)
    key = {"Idempotency-Key": "k"}
    path = f"/api/sessions/{session['id']}"
    first = shopper.post(f"{path}/renew", json={"package": "gold"}, headers=key)
    task = finished(shopper, first)
    for other_path, body in (
        (f"{path}/renew", {"package": "ruby"}),
        (f"{path}/renew", {"package": "gold", "data": {}}),
        (f"/api/sessions/{task['session_id']}/renew", {"package": "gold"}),
        ("/api/sessions", {"package": "gold"}),
        (f"{path}/recover", {}),
        (f"{path}/complete", {"payment_reference": "p"}),
    ):
        response = shopper.post(other_path, json=body, headers={**key, "Prefer": "wait=20"})
        assert response.status_code == 422
        assert_problem(response, "idempotency_key_reused", "fix")
    repeat = shopper.post(f"{path}/renew", json={"package": "gold"}, headers=key)
    assert repeat.json()["task_id"] == task["id"]
    assert repeat.json()["session_id"] == task["session_id"]  # the session that came of it, now that it is finished


def test_a_key_is_the_users_own(shopper: httpx.Client, enter: Enter, operator: httpx.Client, user_id: str) -> None:
    key = {"Idempotency-Key": "k"}
    mine = shopper.post("/api/sessions", json=BODY, headers=key).json()
    others = enter().post("/api/sessions", json={"package": "gold"}, headers=key)
    assert others.status_code == 202
    assert others.json()["task_id"] != mine["task_id"]
    by_service = operator.post("/api/sessions", json={**BODY, "user_id": user_id}, headers=key)
    assert by_service.json()["task_id"] == mine["task_id"]  # the user's, whoever acts for them


def test_without_a_key_each_request_is_a_task(shopper: httpx.Client) -> None:
    assert len({shopper.post("/api/sessions", json=BODY).json()["task_id"] for _ in range(3)}) == 3


def test_a_refusal_is_repeated_as_well(patient: httpx.Client) -> None:
    path = f"/api/sessions/{uuid7()}/complete"
    body, key = {"payment_reference": "p"}, {"Idempotency-Key": "k"}
    first, second = (patient.post(path, json=body, headers=key) for _ in range(2))
    assert first.status_code == 404
    assert (first.status_code, first.json()) == (second.status_code, second.json())


@pytest.mark.parametrize("key", ["x", "a" * 255, "3f2c-:;/?#[]@!$&'()*+,=~ x"])
def test_what_a_key_may_be(shopper: httpx.Client, key: str) -> None:
    first, second = (shopper.post("/api/sessions", json=BODY, headers={"Idempotency-Key": key}) for _ in range(2))
    assert first.json()["task_id"] == second.json()["task_id"]


@pytest.mark.parametrize("key", ["", "a" * 256, b"caf\xe9", b"\xf0\x9f\x98\x80", "a\tb"])
def test_what_a_key_may_not_be(shopper: httpx.Client, user_id: str, service: Service, key: str | bytes) -> None:
    headers: Any = {"Idempotency-Key": key}
    response = shopper.post("/api/sessions", json=BODY, headers=headers)
    assert response.status_code == 422
    problem = assert_problem(response, "invalid_request", errors=response.json()["errors"])
    assert problem["errors"][0]["where"] == "header.idempotency-key"
    assert service.count("session_tasks", user_id) == 0


def ask_all(urls: list[str], requests: list[tuple[str, str, Any]]) -> list[httpx.Response]:
    """All of them at once, by (user, key, body)."""
    return asyncio.run(
        burst(
            urls,
            [
                posted("/api/sessions", headers(user, **{"Idempotency-Key": key, "Prefer": "wait=30"}), body)
                for user, key, body in requests
            ],
        )
    )


@pytest.fixture(scope="module")
def two_urls(service: Service) -> list[str]:
    """Two API processes."""
    return [service.stack.url, service.another_api()]


def test_hundreds_of_concurrent_repeats_are_one_task(two_urls: list[str], service: Service) -> None:
    user = new_user()
    answers = ask_all(two_urls, [(user, "k", BODY)] * 300)
    assert Counter(answer.status_code for answer in answers) == {201: 300}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert service.count("session_tasks", user) == 1
    assert service.count("checkout_sessions", user) == 1


def test_many_keys_in_any_order_neither_mix_nor_block_each_other(two_urls: list[str], service: Service) -> None:
    users = [new_user() for _ in range(5)]
    requests = [(user, f"k{n}", {"package": f"p{n}"}) for user in users for n in range(10) for _ in range(8)]
    random.Random(1).shuffle(requests)
    answers = ask_all(two_urls, requests)
    assert Counter(answer.status_code for answer in answers) == {201: 400}
    tasks: dict[tuple[str, str], set[str]] = {}
    for (user, key, body), answer in zip(requests, answers, strict=True):
        assert answer.json()["result"]["package"] == body["package"]
        assert answer.json()["result"]["user_id"] == user
        tasks.setdefault((user, key), set()).add(answer.json()["id"])
    assert all(len(ids) == 1 for ids in tasks.values())
    assert [service.count("session_tasks", user) for user in users] == [10] * 5


def test_of_concurrent_requests_under_one_key_one_body_wins(two_urls: list[str], service: Service) -> None:
    user = new_user()
    requests = [(user, "k", {"package": f"p{n % 2}"}) for n in range(100)]
    random.Random(2).shuffle(requests)
    answers = ask_all(two_urls, requests)
    won = {answer.json()["result"]["package"] for answer in answers if answer.status_code == 201}
    assert len(won) == 1
    for (_, _, body), answer in zip(requests, answers, strict=True):
        assert answer.status_code == (201 if body["package"] in won else 422)
    assert service.count("session_tasks", user) == 1


def test_a_batch_is_inserted_in_the_order_of_its_keys(service: Service) -> None:
    """Two API processes that hold each other's keys would wait for each other until one gives up."""
    users = [new_user() for _ in range(20)]
    requests = [(user, f"k{n}", BODY) for user in users for n in range(15)]
    random.Random(3).shuffle(requests)
    ask_all([service.stack.url], requests)
    rows = service.sql.execute(
        "SELECT accepted_at, idempotency_key, user_id FROM session_tasks WHERE user_id = ANY(%s) ORDER BY seq", [users]
    ).fetchall()
    in_order = [(row["accepted_at"], row["idempotency_key"], row["user_id"]) for row in rows]
    assert len({row["accepted_at"] for row in rows}) < len(rows), "some were accepted together"
    assert in_order == sorted(in_order)
