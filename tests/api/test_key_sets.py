"""Tokens of a key set (JWKS), served by a real little HTTP server."""

import base64
import hmac
import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from tests.api.conftest import Enter, Service
from tests.api.contract import assert_problem, new_user
from tests.stack import SECRET, eventually

Key = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


def public(key: Key, kid: str, **more: Any) -> dict[str, Any]:
    """A key as a key set shows it."""
    algorithm = RSAAlgorithm if isinstance(key, rsa.RSAPrivateKey) else ECAlgorithm
    shown: dict[str, Any] = algorithm.to_jwk(key.public_key(), as_dict=True)  # type: ignore[arg-type]
    return {**shown, "kid": kid, "use": "sig", **more}


class KeySet:
    """A key set at a URL.

    It counts how often it was fetched, can fail, and can hang.
    """

    def __init__(self) -> None:
        self.keys: list[dict[str, Any]] = []
        self.body: bytes | None = None
        self.fetched = 0
        self.status = 200
        self.go_on = Event()
        self.go_on.set()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.fetched += 1
                outer.go_on.wait(60)
                body = outer.body if outer.body is not None else json.dumps({"keys": outer.keys}).encode()
                self.send_response(outer.status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.handle_error = lambda *_: None  # type: ignore[method-assign]  # a client may hang up first
        self.url = f"http://127.0.0.1:{self.server.server_port}/keys.json"
        self.thread = Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05})
        self.thread.start()

    def close(self) -> None:
        """Stop serving, and refuse connections from then on."""
        self.go_on.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


def signed(key: Key, kid: str | None, algorithm: str, **claims: Any) -> str:
    """A token by this key."""
    headers = {} if kid is None else {"kid": kid}
    claims = {"sub": new_user(), "role": "authenticated", "exp": time.time() + 3_600, **claims}
    return jwt.encode(claims, key, algorithm, headers=headers)


RSA, OTHER_RSA = (rsa.generate_private_key(65_537, 2_048) for _ in range(2))
EC, OTHER_EC = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
EC_384 = ec.generate_private_key(ec.SECP384R1())


@pytest.fixture(scope="module")
def key_set() -> Iterator[KeySet]:
    """One that has an RSA and an EC key, and some that nobody may sign with."""
    served = KeySet()
    served.keys = [
        public(RSA, "rsa"),
        public(EC, "ec"),
        public(OTHER_RSA, "encrypts", use="enc"),
        {"kty": "oct", "kid": "shared", "k": "c2VjcmV0", "use": "sig"},
        {"kty": "unknown to us", "kid": "future"},
    ]
    yield served
    served.close()


@pytest.fixture(scope="module")
def keyed_url(service: Service, key_set: KeySet) -> str:
    """An API process that checks tokens with the key set."""
    return service.another_api(JWT_SECRET="", JWT_JWKS_URL=key_set.url)


@pytest.fixture
def read(enter: Enter) -> Callable[[str, str], httpx.Response]:
    """Reads with a token at a URL."""

    def ask(url: str, bearer: str) -> httpx.Response:
        return enter(url=url).get("/api/sessions/current", headers={"Authorization": f"Bearer {bearer}"})

    return ask


Read = Callable[[str, str], httpx.Response]


@pytest.mark.parametrize(("key", "kid", "algorithm"), [(RSA, "rsa", "RS256"), (EC, "ec", "ES256")])
def test_a_key_of_the_set_lets_in(read: Read, keyed_url: str, key: Key, kid: str, algorithm: str) -> None:
    assert_problem(read(keyed_url, signed(key, kid, algorithm)), "no_active_session")


def as_secret(key: Key) -> str:
    """The public key as text, which an attacker takes for the secret of HS256."""
    return (
        key.public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        .decode()
    )


def with_secret(secret: str, kid: str) -> str:
    """An HS256 token; PyJWT itself would not take a public key for a secret."""

    def part(value: Any) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    claims = {"sub": "s", "role": "service_role", "exp": 2**33}
    raw = f"{part({'alg': 'HS256', 'kid': kid})}.{part(claims)}"
    signature = hmac.new(secret.encode(), raw.encode(), "sha256").digest()
    return f"{raw}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"


FORGED = {
    "another key under the kid": signed(OTHER_RSA, "rsa", "RS256"),
    "another EC key under the kid": signed(OTHER_EC, "ec", "ES256"),
    "unknown kid": signed(RSA, "unknown", "RS256"),
    "no kid": signed(RSA, None, "RS256"),
    "a key for encryption": signed(OTHER_RSA, "encrypts", "RS256"),
    "RS256 under the EC key's kid": signed(RSA, "ec", "RS256"),
    "ES256 under the RSA key's kid": signed(EC, "rsa", "ES256"),
    "RS512": signed(RSA, "rsa", "RS512"),
    "PS256": signed(RSA, "rsa", "PS256"),
    "ES384 under the EC key's kid": signed(EC_384, "ec", "ES384"),
    "the public key as secret": with_secret(as_secret(RSA), "rsa"),
    "the EC public key as secret": with_secret(as_secret(EC), "ec"),
    "the set's shared secret": with_secret("secret", "shared"),
    "the tests' secret": with_secret(SECRET, "rsa"),
    "alg none": jwt.encode({"sub": "s", "role": "service_role", "exp": 2**33}, None, "none", headers={"kid": "rsa"}),
    "kid is a path": signed(RSA, "../../etc/passwd", "RS256"),
    "kid is text of a megabyte's part": signed(RSA, "k" * 4_000, "RS256"),
    "expired": signed(RSA, "rsa", "RS256", exp=1),
    "anonymous": signed(RSA, "rsa", "RS256", role="anon"),
    "garbage": "x.y.z",
}


@pytest.mark.parametrize("bearer", FORGED.values(), ids=FORGED)
def test_nothing_else_lets_in(read: Read, keyed_url: str, bearer: str) -> None:
    response = read(keyed_url, bearer)
    assert response.status_code == 401
    assert_problem(response, "token_expired" if bearer == FORGED["expired"] else "token_invalid", "sign_in")


def test_a_service_is_let_in_by_a_key_too(enter: Enter, keyed_url: str) -> None:
    bearer = signed(EC, "ec", "ES256", role="service_role")
    response = enter(url=keyed_url).post("/api/maintenance/cleanup", headers={"Authorization": f"Bearer {bearer}"})
    assert response.status_code == 202


def test_the_set_is_not_fetched_for_each_token(read: Read, keyed_url: str, key_set: KeySet) -> None:
    """Nor for each kid that an attacker makes up."""
    read(keyed_url, signed(RSA, "rsa", "RS256"))
    before = key_set.fetched
    for n in range(20):
        assert read(keyed_url, signed(RSA, "rsa", "RS256")).status_code == 404
        assert read(keyed_url, signed(RSA, f"made-up-{n}", "RS256")).status_code == 401
    assert key_set.fetched <= before + 2


def test_a_key_set_comes_changes_hangs_and_goes(read: Read, enter: Enter, service: Service) -> None:
    """While it cannot be had: 503, not 401. The token may be good, so nobody is asked to sign in again."""
    key_set = KeySet()
    try:
        key_set.keys = [public(RSA, "old")]
        key_set.go_on.clear()
        url = service.another_api(JWT_SECRET="", JWT_JWKS_URL=key_set.url)
        old, new = signed(RSA, "old", "RS256"), signed(EC, "new", "ES256")

        with ThreadPoolExecutor(8) as threads:
            hanging = [threads.submit(read, url, old) for _ in range(8)]
            assert enter(url=url).get("/healthz").status_code == 200  # others are served meanwhile
            for answer in hanging:
                assert_problem(answer.result(), "keys_unavailable", "retry")
        assert key_set.fetched < 8, "they wait together, not one after the other"

        key_set.go_on.set()
        for status, body in ((500, b"{}"), (200, b"{"), (200, b'{"keys": [7]}')):
            key_set.status, key_set.body, fetched = status, body, key_set.fetched
            while key_set.fetched == fetched:
                assert_problem(read(url, old), "keys_unavailable", "retry")

        key_set.status, key_set.body = 200, None
        eventually(lambda: read(url, old).status_code == 404, "a good set lets in")
        key_set.status = 500
        assert read(url, signed(RSA, "old", "RS256")).status_code == 404, "known keys go on"
        assert read(url, new).status_code in (401, 503)

        key_set.status, key_set.keys = 200, [public(EC, "new")]
        eventually(lambda: read(url, new).status_code == 404, "a new key lets in")
        assert_problem(read(url, old), "token_invalid", "sign_in")  # though this very token was let in before
    finally:
        key_set.close()
