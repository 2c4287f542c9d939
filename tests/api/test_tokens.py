"""Bearer tokens of a shared secret: which are let in, and as whom."""

import asyncio
import base64
import hmac
import json
import time
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from api.auth import Verifier
from api.problems import Problem
from api.settings import ApiSettings
from tests.api.asking import begin
from tests.api.conftest import Enter, Service
from tests.api.contract import assert_problem, new_user
from tests.stack import SECRET, eventually, token

OTHER_SECRET = "another secret for tests, of more than thirty-two bytes"


def part(value: Any) -> str:
    """One part of a token."""
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def signed(header: dict[str, Any], digest: str = "sha256", **claims: Any) -> str:
    """A token with any header and claims, well signed with the secret."""
    raw = f"{part(header)}.{part(claims)}"
    signature = hmac.new(SECRET.encode(), raw.encode(), digest).digest()
    return f"{raw}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"


HS256 = {"alg": "HS256", "typ": "JWT"}
GOOD = {"sub": "s", "role": "authenticated", "exp": 2**33}
RSA_KEY = rsa.generate_private_key(65_537, 2_048)


def asked(enter: Enter, authorization: str | bytes | None, url: str = "") -> httpx.Response:
    """A read with this header, or none."""
    client = enter(url=url)
    del client.headers["Authorization"]
    headers: Any = {} if authorization is None else {"Authorization": authorization}
    return client.get("/api/sessions/current", headers=headers)


@pytest.mark.parametrize("authorization", [None, "", "Bearer", "Basic dXNlcjpwYXNz", "bearer:x", "x"])
def test_no_bearer_token(enter: Enter, authorization: str | None) -> None:
    response = asked(enter, authorization)
    assert response.status_code == 401
    assert_problem(response, "token_missing", "sign_in")
    assert response.headers["WWW-Authenticate"] == "Bearer"


INVALID = {
    "garbage": "x",
    "three parts of garbage": "x.y.z",
    "dots": "..",
    "many parts": "a.b.c.d.e",
    "bytes beyond ASCII": b"\xff\xfe.\xff.\xff",
    "very long": "a" * 20_000,
    "wrong secret": jwt.encode(GOOD, OTHER_SECRET, "HS256"),
    "alg none": jwt.encode(GOOD, None, "none"),
    "alg none, signature kept": part({"alg": "none"}) + "." + token("s").partition(".")[2],
    "alg none in capitals": f"{part({'alg': 'NONE'})}.{part(GOOD)}.",
    "HS384": signed({"alg": "HS384"}, "sha384", **GOOD),
    "HS512": signed({"alg": "HS512"}, "sha512", **GOOD),
    "RS256": jwt.encode(GOOD, RSA_KEY, "RS256"),
    "no alg": signed({"typ": "JWT"}, **GOOD),
    "alg is a list": signed({"alg": ["HS256"]}, **GOOD),
    "critical extension": signed({**HS256, "crit": ["b64"], "b64": False}, **GOOD),
    "no exp": signed(HS256, sub="s", role="authenticated"),
    "exp is text": signed(HS256, **{**GOOD, "exp": "soon"}),
    "exp is a list": signed(HS256, **{**GOOD, "exp": [2**33]}),
    "exp is null": signed(HS256, **{**GOOD, "exp": None}),
    "exp is infinite": signed(HS256, **{**GOOD, "exp": float("inf")}),
    "exp is no number": signed(HS256, **{**GOOD, "exp": float("nan")}),
    "exp is an object": signed(HS256, **{**GOOD, "exp": {}}),
    "not yet valid": signed(HS256, **GOOD, nbf=int(time.time()) + 3_600),
    "nbf is text": signed(HS256, **GOOD, nbf="later"),
    "issued tomorrow": signed(HS256, **GOOD, iat=int(time.time()) + 86_400),
    "no sub": signed(HS256, role="authenticated", exp=2**33),
    "sub is empty": signed(HS256, **{**GOOD, "sub": ""}),
    "sub is a number": signed(HS256, **{**GOOD, "sub": 7}),
    "sub is null": signed(HS256, **{**GOOD, "sub": None}),
    "sub is a list": signed(HS256, **{**GOOD, "sub": ["s"]}),
    "sub is an object": signed(HS256, **{**GOOD, "sub": {"$ne": ""}}),
    "sub is too long": signed(HS256, **{**GOOD, "sub": "s" * 256}),
    "sub has a NUL": signed(HS256, **{**GOOD, "sub": "a\0b"}),
    "sub has a lone surrogate": signed(HS256, **{**GOOD, "sub": "a\ud800b"}),
    "no role": signed(HS256, sub="s", exp=2**33),
    "anonymous role": signed(HS256, **{**GOOD, "role": "anon"}),
    "role in capitals": signed(HS256, **{**GOOD, "role": "SERVICE_ROLE"}),
    "role is a list": signed(HS256, **{**GOOD, "role": ["service_role"]}),
    "role is an object": signed(HS256, **{**GOOD, "role": {}}),
    "claims are a list": f"{part(HS256)}.{part([])}.x",
}


@pytest.mark.parametrize("bearer", INVALID.values(), ids=INVALID)
def test_a_token_that_is_not_valid(enter: Enter, bearer: str | bytes) -> None:
    authorization = b"Bearer " + bearer if isinstance(bearer, bytes) else f"Bearer {bearer}"
    response = asked(enter, authorization)
    assert response.status_code == 401
    assert_problem(response, "token_invalid", "sign_in")
    assert response.headers["WWW-Authenticate"] == 'Bearer error="invalid_token"'


def test_a_token_is_good_for_a_leeway_after_its_end_and_no_longer(enter: Enter) -> None:
    """The margins are wide: five seconds for a slow machine, on a leeway of ten."""
    user_id = new_user()
    just_over = token(user_id, exp=time.time() - 1)
    assert asked(enter, f"Bearer {just_over}").json()["code"] == "no_active_session"
    over = asked(enter, f"Bearer {token(user_id, exp=time.time() - 11)}")
    assert over.status_code == 401
    assert_problem(over, "token_expired", "sign_in")
    assert over.headers["WWW-Authenticate"] == 'Bearer error="invalid_token"'
    assert asked(enter, f"Bearer {token(user_id, nbf=time.time() + 5)}").status_code == 404


def test_a_token_that_was_let_in_before_still_ends(enter: Enter) -> None:
    """What is known of a token is kept no longer than it lives."""
    bearer = f"Bearer {token(new_user(), exp=time.time() - 7)}"
    assert asked(enter, bearer).status_code == 404
    assert eventually(lambda: (r := asked(enter, bearer)).status_code == 401 and r).json()["code"] == "token_expired"


@pytest.mark.parametrize("sub", ["a", "x" * 255, "Zoë 😀", "'; DROP TABLE session_tasks; --", "a b", "../..", "%00"])
def test_whoever_the_token_names_is_the_user(enter: Enter, service: Service, sub: str) -> None:
    client = enter(sub)
    session = begin(client)
    assert session["user_id"] == sub
    assert service.one("SELECT user_id FROM checkout_sessions WHERE id = %s", session["id"])["user_id"] == sub


def test_supabases_tokens_work_as_they_are(enter: Enter) -> None:
    """A user's has many claims more; the service key of a project has no `sub` and lives ten years."""
    user = {
        "aal": "aal1", "amr": [{"method": "password", "timestamp": 1}], "app_metadata": {"provider": "email"},
        "aud": "authenticated", "email": "a@example.org", "exp": int(time.time()) + 3_600, "iat": int(time.time()),
        "is_anonymous": False, "iss": "https://project.supabase.co/auth/v1", "phone": "", "role": "authenticated",
        "session_id": "x", "sub": "4f0d1e1c-8b1f-4a5e-9d55-7a1b2c3d4e5f", "user_metadata": {},
    }  # fmt: skip
    assert asked(enter, f"Bearer {signed(HS256, **user)}").json()["code"] == "no_active_session"
    key = {"iss": "supabase", "ref": "project", "role": "service_role", "iat": 1_700_000_000, "exp": 2_015_360_000}
    client = enter(url="")
    client.headers["Authorization"] = f"Bearer {signed(HS256, **key)}"
    assert client.post("/api/maintenance/cleanup").status_code == 202
    anonymous = signed(HS256, **{**key, "role": "anon"})
    assert asked(enter, f"Bearer {anonymous}").json()["code"] == "token_invalid"


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", "Bearer  "])
def test_the_scheme_is_written_in_any_case(enter: Enter, scheme: str) -> None:
    assert asked(enter, f"{scheme} {token(new_user())}").status_code == 404


@pytest.mark.parametrize(
    ("claims", "let_in"),
    [
        ({"aud": "authenticated"}, True),
        ({"aud": ["other", "authenticated"]}, True),
        ({}, False),
        ({"aud": "other"}, False),
        ({"aud": ["other"]}, False),
        ({"aud": 7}, False),
        ({"aud": []}, False),
    ],
)
def test_an_audience_is_asked_for_where_one_is_set(claims: dict[str, Any], let_in: bool) -> None:
    assert verdict(claims, jwt_audience="authenticated") == ("s" if let_in else "token_invalid")


@pytest.mark.parametrize(
    ("claims", "let_in"),
    [({"iss": "https://id.example"}, True), ({"iss": "https://id.example/"}, False), ({}, False)],
)
def test_an_issuer_is_asked_for_where_one_is_set(claims: dict[str, Any], let_in: bool) -> None:
    assert verdict(claims, jwt_issuer="https://id.example") == ("s" if let_in else "token_invalid")


def verdict(claims: dict[str, Any], **settings: Any) -> str:
    """Whom a token of `s` with these claims stands for under these settings, or the problem's code."""
    verifier = Verifier(
        ApiSettings(
            database_url="postgresql://localhost/none",  # type: ignore[arg-type]
            redis_url="redis://localhost",  # type: ignore[arg-type]
            jwt_secret=SECRET,  # type: ignore[arg-type]
            **settings,
        )
    )
    try:
        return asyncio.run(verifier.principal(token("s", **claims), time.time())).user_id
    except Problem as problem:
        return problem.code


def test_each_path_asks_for_a_token(enter: Enter, contract: Any) -> None:
    """All but the probes'."""
    client = enter()
    del client.headers["Authorization"]
    for template, operations in contract.raw["paths"].items():
        if not template.startswith("/api/"):
            continue
        path = template.replace("{session_id}", "x").replace("{task_id}", "x")
        for method in operations:
            response = client.request(method, path, json={} if method in ("post", "patch") else None)
            assert response.status_code == 401, (method, path, response.text)
            assert response.json()["code"] == "token_missing"
