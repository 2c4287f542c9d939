"""How much one request, one user and all together may ask for."""

import asyncio
import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from tests.api.asking import begin, burst, posted, send_raw
from tests.api.conftest import Enter, Service
from tests.api.contract import assert_problem, new_user
from tests.stack import eventually, headers

BODY_LIMIT = 65_536


def body_of(size: int) -> bytes:
    """A create of exactly so many bytes."""
    frame = json.dumps({"package": "p", "data": {"d": ""}}).encode()
    return frame.replace(b'""', b'"' + b"x" * (size - len(frame)) + b'"')


def in_pieces(body: bytes) -> Iterator[bytes]:
    """A body of unknown length: httpx then sends it chunked."""
    for start in range(0, len(body), 10_000):
        yield body[start : start + 10_000]


def post_raw(client: httpx.Client, content: Any) -> httpx.Response:
    """A create with this body."""
    return client.post("/api/sessions", content=content, headers={"Content-Type": "application/json"})


def test_a_body_of_the_limit_is_taken_and_one_byte_more_is_not(
    shopper: httpx.Client, user_id: str, service: Service
) -> None:
    assert post_raw(shopper, body_of(BODY_LIMIT)).status_code == 202
    response = post_raw(shopper, body_of(BODY_LIMIT + 1))
    assert response.status_code == 413
    assert_problem(response, "body_too_large", "fix")
    assert service.count("session_tasks", user_id) == 1


def test_the_same_of_a_body_that_comes_in_chunks(shopper: httpx.Client, user_id: str, service: Service) -> None:
    assert post_raw(shopper, in_pieces(body_of(BODY_LIMIT))).status_code == 202
    assert_problem(post_raw(shopper, in_pieces(body_of(BODY_LIMIT + 1))), "body_too_large")
    assert_problem(post_raw(shopper, in_pieces(body_of(10 * BODY_LIMIT))), "body_too_large")
    assert service.count("session_tasks", user_id) == 1


@pytest.mark.parametrize("path", ["/api/create-checkout-session", "/api/validate-checkout-session"])
def test_old_paths_refuse_it_in_their_way(shopper: httpx.Client, path: str) -> None:
    response = shopper.post(path, content=body_of(BODY_LIMIT + 1), headers={"Content-Type": "application/json"})
    assert (response.status_code, response.json()["code"]) == (413, "body_too_large")


def test_a_body_that_is_announced_too_large_is_not_waited_for(service: Service, user_id: str) -> None:
    """The answer comes though the body never does."""
    lines = [
        "POST /api/sessions HTTP/1.1",
        "Host: localhost",
        "Connection: close",
        "Content-Type: application/json",
        f"Content-Length: {10**9}",
        *(f"{name}: {value}" for name, value in headers(user_id).items()),
    ]
    response = asyncio.run(send_raw(service.stack.url, ("\r\n".join(lines) + "\r\n\r\n").encode()))
    assert response.status_code == 413
    assert response.json()["code"] == "body_too_large"


def nested(depth: int) -> dict[str, Any]:
    """Data of this depth; an empty object has depth one."""
    data: dict[str, Any] = {}
    for _ in range(depth - 1):
        data = {"d": data}
    return data


WITHIN = {
    "16 deep": nested(16),
    "a list 16 deep": {"d": json.loads("[" * 15 + "]" * 15)},
    "2000 names and values": {"d": list(range(1_997))},
    "the largest exact integer": {"d": [2**53, -(2**53)]},
    "the largest float": {"d": [2.0**53, -0.5, 1e-300]},
    "emoji": {"😀": "👩‍👩‍👧"},
    "controls": {"d": "\u0001\u001f\u007f\u2028"},
    "an empty key": {"": 1},
    "keys of a prototype": {"__proto__": {"a": 1}, "constructor": 1},
    "SQL": {"'); DROP TABLE session_tasks; --": "%s %(id)s {} $1"},
}
BEYOND = {
    "17 deep": nested(17),
    "a list 17 deep": {"d": json.loads("[" * 16 + "]" * 16)},
    "2001 names and values": {"d": list(range(1_998))},
    "an integer beyond 2^53": {"d": 2**53 + 1},
    "an integer below -2^53": {"d": -(2**53) - 1},
    "a huge integer": {"d": 10**400},
    "a large float": {"d": 1.5e300},
    "NUL in a value": {"d": "a\0b"},
    "NUL in a key": {"a\0b": 1},
    "NUL deep inside": {"d": [{"e": ["\0"]}]},
}


@pytest.mark.parametrize("data", WITHIN.values(), ids=WITHIN)
def test_data_within_the_limits_comes_back_as_it_went(shopper: httpx.Client, data: dict[str, Any]) -> None:
    session = begin(shopper, data=data)
    assert session["data"] == data
    changed = shopper.patch(f"/api/sessions/{session['id']}", json={"data": data})
    assert changed.json()["data"] == data
    renewed = shopper.post(f"/api/sessions/{session['id']}/renew", json={"package": "g"}, headers={"Prefer": "wait=20"})
    assert renewed.json()["result"]["data"] == data


@pytest.mark.parametrize("data", BEYOND.values(), ids=BEYOND)
def test_data_beyond_the_limits_is_refused_everywhere(
    shopper: httpx.Client, user_id: str, service: Service, data: dict[str, Any]
) -> None:
    session = begin(shopper)
    for method, path, body in (
        ("POST", "/api/sessions", {"package": "p", "data": data}),
        ("POST", f"/api/sessions/{session['id']}/renew", {"package": "p", "data": data}),
        ("PATCH", f"/api/sessions/{session['id']}", {"data": data}),
    ):
        response = shopper.request(method, path, json=body)
        assert response.status_code == 422, response.text
        assert_problem(response, "invalid_request", "fix", errors=response.json()["errors"])
        assert response.json()["errors"][0]["where"] == "body.data"
    old = shopper.post("/api/create-checkout-session", json={"packageId": "p", "data": data})
    assert (old.status_code, old.json()["code"]) == (422, "invalid_request")
    assert service.count("session_tasks", user_id) == 1
    assert shopper.get(f"/api/sessions/{session['id']}").json()["data"] == {}


def test_large_numbers_of_an_older_shop_can_be_read(shopper: httpx.Client, service: Service) -> None:
    """Postgres spells a large float as an integer of any length, which the API must be able to write again."""
    session = begin(shopper)
    service.sql.execute(
        """UPDATE checkout_sessions SET data = '{"big": 1.5e300, "bigger": 123456789012345678901}' WHERE id = %s""",
        [session["id"]],
    )
    expected = {"big": 1.5e300, "bigger": 123456789012345678901.0}
    assert shopper.get(f"/api/sessions/{session['id']}").json()["data"] == expected
    assert shopper.patch(f"/api/sessions/{session['id']}", json={"step": "x"}).json()["data"] == expected
    recovered = shopper.post(f"/api/sessions/{session['id']}/recover", headers={"Prefer": "wait=20"})
    assert recovered.json()["result"]["data"] == expected


@pytest.mark.parametrize("text", ["x" * 255, "é" * 255, "😀" * 255])
def test_texts_may_have_255_characters(shopper: httpx.Client, text: str) -> None:
    session = begin(shopper, package=text, step=text)
    assert (session["package"], session["step"]) == (text, text)


@pytest.mark.parametrize("text", ["", "x" * 256, "a\0b"])
def test_texts_that_may_not_be(shopper: httpx.Client, text: str) -> None:
    for body in ({"package": text}, {"package": "p", "step": text}):
        assert_old = shopper.post("/api/sessions", json=body)
        assert (assert_old.status_code, assert_old.json()["code"]) == (422, "invalid_request")
    response = shopper.post("/api/sessions/x/complete", json={"payment_reference": text})
    assert response.json()["errors"][0]["where"] == "body.payment_reference"


def test_a_head_beyond_the_limit_is_refused(shopper: httpx.Client) -> None:
    assert shopper.get("/api/sessions/x", headers={"X-Junk": "x" * 30_000}).status_code == 404
    response = shopper.get("/api/sessions/x", headers={"X-Junk": "x" * 33_000})
    assert response.status_code == 431
    assert_problem(response, "headers_too_large", "fix")
    many = [(f"X-Junk-{n}", "x" * 1_000) for n in range(33)]
    assert_problem(shopper.get("/api/sessions/x", headers=many), "headers_too_large")


def test_a_head_without_end_is_cut_off(service: Service, user_id: str) -> None:
    """It would fill the memory."""
    request = posted("/api/sessions", {**headers(user_id), "X-Junk": "x" * 1_000_000}, {"package": "p"})
    try:
        response = asyncio.run(send_raw(service.stack.url, request))
    except (OSError, ValueError, IndexError):
        pass  # cut off
    else:
        assert response.status_code == 431
    assert httpx.get(f"{service.stack.url}/healthz").status_code == 200
    assert service.count("session_tasks", user_id) == 0


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("a-Z_0.9", True),
        ("x" * 64, True),
        ("x" * 65, False),
        ("", False),
        ("a b", False),
        ("a\tb", False),
        ("<script>", False),
        (b"caf\xe9", False),
    ],
)
def test_a_request_id_is_kept_if_it_is_harmless(shopper: httpx.Client, given: str | bytes, kept: bool) -> None:
    header: Any = {"X-Request-ID": given}
    answers = [shopper.get(path, headers=header).headers["X-Request-ID"] for path in ("/healthz", "/api/sessions/x")]
    assert [answer == given for answer in answers] == [kept, kept]
    assert all(0 < len(answer) <= 64 for answer in answers)


def test_a_user_is_limited_and_the_others_are_not(enter: Enter, service: Service) -> None:
    url = service.another_api(RATE_LIMIT="5")
    hasty = new_user()
    request = b"GET /api/sessions/current HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: %b\r\n\r\n"
    requests = [request % headers(hasty)["Authorization"].encode()] * 100

    def limited() -> httpx.Response | None:
        """Of a hundred at once, more than five fall into one second, however slow the machine is."""
        answers = asyncio.run(burst([url], requests))
        assert {answer.status_code for answer in answers} <= {404, 429}
        return next((answer for answer in answers if answer.status_code == 429), None)

    response = eventually(limited)
    assert (response.json()["code"], response.json()["next"]) == ("rate_limited", "retry")
    assert response.headers["Retry-After"] == "1"
    assert assert_problem(enter(url=url).get("/api/sessions/current"), "no_active_session")
    client = enter(hasty, url=url)
    eventually(lambda: client.get("/api/sessions/current").status_code == 404, "the next second is another one")

    def seen() -> bool:
        return any(client.get("/api/sessions/current").status_code == 429 for _ in range(50))

    eventually(seen, "an ordinary client sees it as well")
    operator = enter(role="service_role", url=url)
    assert {operator.get("/api/sessions/x").status_code for _ in range(30)} == {404}


def test_a_backlog_is_limited(enter: Enter, services: Callable[..., Service], service: Service) -> None:
    full = services("full", "api", BACKLOG_LIMIT="5")
    client = enter(url=full.stack.url)
    answers = [client.post("/api/sessions", json={"package": "p"}) for _ in range(8)]
    assert [answer.status_code for answer in answers] == [202] * 5 + [503] * 3
    assert_problem(answers[-1], "backlog_full", "retry")
    assert answers[-1].headers["Retry-After"] == "5"
    session_id = answers[0].json()["session_id"]
    for path, body in (("recover", {}), ("renew", {"package": "p"}), ("complete", {"payment_reference": "p"})):
        assert_problem(client.post(f"/api/sessions/{session_id}/{path}", json=body), "backlog_full")
    old = client.post("/api/create-checkout-session", json={"packageId": "p"})
    assert (old.status_code, old.json()["code"], old.headers["Retry-After"]) == (503, "backlog_full", "5")
    assert client.get(answers[0].headers["Location"]).status_code == 200  # reads go on
    assert full.one("SELECT count(*) AS n FROM session_tasks")["n"] == 5
    full.finish_all()
    response = eventually(lambda: (r := client.post("/api/sessions", json={"package": "p"})).status_code == 202 and r)
    assert response.headers["Location"]
