"""Attempts at another's sessions, tasks and doors: none sees anything, none changes a row."""

import base64
import json
import time
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from uuid_utils.compat import uuid7

from tests.api.asking import begin, finished
from tests.api.conftest import Enter, Service
from tests.stack import SECRET, token

PAYLOAD = {"sub": "{victim}", "role": "authenticated", "exp": 2**33}
WRONG = "another secret of more than thirty-two bytes, but not ours"


def part(value: dict[str, Any]) -> str:
    """A part of a JWT that nobody signed."""
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


@dataclass(frozen=True)
class Attempt:
    """What a stranger tries.

    Args:
        bearer: `None` for the stranger's own good token.
        expected: the statuses that say no; 200 and 201 only where the answer is about the stranger's own.
        own: whether a good answer may come, and must be about the stranger alone.
    """

    method: str
    path: str
    body: dict[str, Any] | None = None
    bearer: str | None = None
    headers: dict[str, str] = field(default_factory=dict)
    expected: tuple[int, ...] = (404,)
    own: bool = False


S, T = "/api/sessions/{session}", "/api/tasks/{task}"
FORGED = {
    "signed with another secret": token("{victim}", secret=WRONG),
    "not signed": f"{part({'alg': 'none', 'typ': 'JWT'})}.{part(PAYLOAD)}.",
    "a signature of another token": "SPLICED",
    "a role of one's own": token("{victim}", role="postgres"),
    "a service, signed with another secret": token("", role="service_role", secret=WRONG),
    "expired": token("{victim}", exp=time.time() - 3_600),
    "the secret as a token": SECRET,
    "empty": "",
}
ATTEMPTS = {
    "reads the session": Attempt("GET", S),
    "reads its history": Attempt("GET", f"{S}/history"),
    "reads the task": Attempt("GET", T),
    "waits for the task": Attempt("GET", f"{T}?wait=1"),
    "reads it with the id in capitals": Attempt("GET", "/api/sessions/{SESSION}"),
    "reads it in braces": Attempt("GET", "/api/sessions/%7B{session}%7D"),
    "reads it as a URN": Attempt("GET", "/api/sessions/urn:uuid:{session}"),
    "reads it without hyphens": Attempt("GET", "/api/sessions/{bare}"),
    "reads it with a query for the user": Attempt("GET", S + "?user_id={victim}"),
    "reads it by the task's path": Attempt("GET", "/api/tasks/{session}"),
    "reads the task as a session": Attempt("GET", "/api/sessions/{task}"),
    "asks for the active session, naming the user": Attempt("GET", "/api/sessions/current?user_id={victim}"),
    "changes its step": Attempt("PATCH", S, {"step": "stolen"}),
    "changes its data": Attempt("PATCH", S, {"data": {"stolen": True}}),
    "changes it, naming the user": Attempt("PATCH", S, {"step": "x", "user_id": "{victim}"}, expected=(403,)),
    "renews it": Attempt("POST", f"{S}/renew", {"package": "stolen"}, expected=(201, 200), own=True),
    "renews it, naming the user": Attempt(
        "POST", f"{S}/renew", {"package": "x", "user_id": "{victim}"}, expected=(403,)
    ),
    "recovers it": Attempt("POST", f"{S}/recover", {}, expected=(410,)),
    "recovers it, naming the user": Attempt("POST", f"{S}/recover", {"user_id": "{victim}"}, expected=(403,)),
    "completes it": Attempt("POST", f"{S}/complete", {"payment_reference": "{stranger}"}),
    "completes it, naming the user": Attempt(
        "POST", f"{S}/complete", {"payment_reference": "p", "user_id": "{victim}"}, expected=(403,)
    ),
    "creates for the user": Attempt("POST", "/api/sessions", {"package": "p", "user_id": "{victim}"}, expected=(403,)),
    "repeats the user's idempotency key": Attempt(
        "POST", "/api/sessions", {"package": "p"}, headers={"Idempotency-Key": "{key}"}, expected=(201,), own=True
    ),
    "validates by the old path": Attempt("POST", "/api/validate-checkout-session", {"sessionId": "{session}"}),
    "recovers by the old path": Attempt(
        "POST", "/api/recover-checkout-session", {"sessionId": "{session}", "userId": "{victim}"}, expected=(410,)
    ),
    "completes by the old path": Attempt(
        "POST", "/api/complete-checkout-session", {"sessionId": "{session}", "paymentReference": "{stranger}"}
    ),
    "cleans up": Attempt("POST", "/api/maintenance/cleanup", expected=(403,)),
    "cleans up by the old path": Attempt("POST", "/api/cleanup-expired-sessions", expected=(403,)),
    "looks at the old path of the cleanup": Attempt("GET", "/api/cleanup-expired-sessions", expected=(403,)),
    "calls itself a service in a header": Attempt("GET", S, headers={"X-Role": "service_role", "Role": "service_role"}),
    "names the user in headers": Attempt("GET", S, headers={"X-User-Id": "{victim}", "X-Forwarded-User": "{victim}"}),
    "overrides the method": Attempt("GET", S, headers={"X-HTTP-Method-Override": "PATCH", "X-Original-URL": S}),
    "sends the user's id as a cookie": Attempt("GET", S, headers={"Cookie": "sub={victim}; role=service_role"}),
    "goes up a folder": Attempt("GET", "/shop/../api/sessions/{session}"),
    "asks for a token of the demo": Attempt("POST", "/demo/token", {"user_id": "{victim}"}),
    "lets the night pass in the demo": Attempt("POST", "/demo/expire"),
    "stops the workers in the demo": Attempt("POST", "/demo/restart-worker"),
    **{
        f"reads the session with a token: {name}": Attempt("GET", S, bearer=bearer, expected=(401,))
        for name, bearer in FORGED.items()
    },
    **{
        f"changes the session with a token: {name}": Attempt("PATCH", S, {"step": "x"}, bearer=bearer, expected=(401,))
        for name, bearer in FORGED.items()
    },
    "cleans up with a forged service token": Attempt(
        "POST", "/api/maintenance/cleanup", bearer=FORGED["a service, signed with another secret"], expected=(401,)
    ),
}


@dataclass(frozen=True)
class Victim:
    """A user with a session, and the words that stand for what is theirs."""

    words: dict[str, str]
    rows: Any


@pytest.fixture(scope="module")
def victim(service: Service, request: pytest.FixtureRequest) -> Victim:
    """One for all attempts: what one of them changed, the next would find."""
    user, key = f"victim-{uuid7()}", f"key-{uuid7()}"
    ask = {"Authorization": f"Bearer {token(user)}", "Idempotency-Key": key}
    with httpx.Client(base_url=service.stack.url, headers=ask, timeout=60) as client:
        task = finished(client, client.post("/api/sessions", json={"package": "gold", "data": {"card": "precious"}}))
    session = task["session_id"]
    words = {
        "victim": user, "key": key, "session": session, "task": task["id"], "SESSION": session.upper(),
        "bare": session.replace("-", ""),
    }  # fmt: skip

    def rows() -> tuple[Any, Any]:
        return (
            service.sql.execute("SELECT * FROM checkout_sessions WHERE user_id = %s", [user]).fetchall(),
            service.sql.execute("SELECT * FROM session_tasks WHERE user_id = %s", [user]).fetchall(),
        )

    return Victim(words, rows)


def filled(value: Any, words: dict[str, str]) -> Any:
    """A text, or all texts in a body, with the words in their places."""
    if isinstance(value, dict):
        return {name: filled(one, words) for name, one in value.items()}
    if isinstance(value, str):
        for name, word in words.items():
            value = value.replace("{" + name + "}", word)
    return value


def forged(bearer: str, victim: str) -> str:
    """A token of these, for this user."""
    if bearer == "SPLICED":
        head, _, signature = token("stranger").split(".")
        return f"{head}.{part({**PAYLOAD, 'sub': victim})}.{signature}"
    return bearer


def tried(attempt: Attempt, victim: Victim, client: httpx.Client, stranger: str) -> httpx.Response:
    """Try it."""
    words = {**victim.words, "stranger": stranger}
    given = {"Prefer": "wait=20", **filled(attempt.headers, words)}
    if attempt.bearer is not None:
        given["Authorization"] = f"Bearer {forged(attempt.bearer, words['victim'])}".strip()
    body = None if attempt.body is None else filled(attempt.body, words)
    return client.request(attempt.method, filled(attempt.path, words), json=body, headers=given)


@pytest.mark.parametrize("attempt", ATTEMPTS.values(), ids=ATTEMPTS)
def test_nothing_of_anothers_is_seen_or_changed(
    service: Service, victim: Victim, user_id: str, attempt: Attempt, enter: Enter
) -> None:
    before = victim.rows()
    began = time.monotonic()
    with httpx.Client(base_url=service.stack.url, headers=dict(enter(user_id).headers), timeout=60) as client:
        response = tried(attempt, victim, client, user_id)
    assert time.monotonic() - began < 40
    assert response.status_code in attempt.expected, response.text
    assert victim.rows() == before
    assert "precious" not in response.text
    assert victim.words["victim"] not in response.text
    if attempt.own:
        assert response.json()["result"]["user_id"] == user_id
        assert response.json()["result"]["id"] != victim.words["session"]


def test_there_are_enough_of_them() -> None:
    assert len(ATTEMPTS) >= 25


def test_the_victim_can_still_go_on(service: Service, victim: Victim, enter: Enter) -> None:
    client = enter(victim.words["victim"])
    assert client.get(f"/api/sessions/{victim.words['session']}").json()["data"] == {"card": "precious"}
    assert begin(client)["previous_session_id"] is None
