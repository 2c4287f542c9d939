"""Bodies that want to do harm: each gets a clear answer, none makes a fault, hangs or changes a row."""

import asyncio
import gzip
import json
from typing import Any

import httpx
import pytest
from uuid_utils.compat import uuid7

from tests.api.asking import begin, send_raw
from tests.api.conftest import Enter, Service
from tests.api.contract import assert_old_refusal, assert_problem
from tests.stack import headers

JSON = "application/json"
MALFORMED = {
    "empty": b"",
    "white space": b" \n ",
    "half an object": b'{"package": "p"',
    "two objects": b'{"package": "p"}{"package": "q"}',
    "something after": b'{"package": "p"} x',
    "single quotes": b"{'package': 'p'}",
    "no quotes": b"{package: p}",
    "a comma too many": b'{"package": "p",}',
    "a comment": b'{"package": "p" /* x */}',
    "a byte order mark": b'\xef\xbb\xbf{"package": "p"}',
    "UTF-16": '{"package": "p"}'.encode("utf-16"),
    "UTF-32": '{"package": "p"}'.encode("utf-32-be"),
    "invalid UTF-8": b'{"package": "\xff\xfe"}',
    "overlong UTF-8": b'{"package": "\xc0\xaf"}',
    "a surrogate in UTF-8": b'{"package": "\xed\xa0\x80"}',
    "half a character": b'{"package": "\xf0\x9f\x98"}',
    "a NUL byte": b'{"package": "a\x00b"}',
    "a line break in a text": b'{"package": "a\nb"}',
    "a lone high surrogate": b'{"package": "\\ud800"}',
    "a lone low surrogate": b'{"package": "\\udc00x"}',
    "surrogates the wrong way round": b'{"package": "\\udc00\\ud800"}',
    "a lone surrogate as a key": b'{"package": "p", "\\ud800": 1}',
    "a lone surrogate in data": b'{"package": "p", "data": {"d": ["\\udfff"]}}',
    "a lone surrogate as a key in data": b'{"package": "p", "data": {"\\ud800": 1}}',
    "100000 brackets": b'{"package": "p", "data": {"d": ' + b"[" * 30_000 + b"]" * 30_000 + b"}}",
    "60000 open brackets": b"[" * 60_000,
    "10000 open objects": b'{"a":' * 10_000,
    "a form": b"package=p",
    "XML": b"<package>p</package>",
    "a pickle": b"\x80\x04\x95\x05\x00\x00\x00\x00\x00\x00\x00\x8c\x01p\x94.",
    "zipped": gzip.compress(b'{"package": "p"}'),
    "a number of 60000 digits": b'{"package": "p", "data": {"d": ' + b"9" * 60_000 + b"}}",
}
INVALID = {
    "null": b"null",
    "an array": b'[{"package": "p"}]',
    "a text": b'"package"',
    "a number": b"1",
    "true": b"true",
    "nothing in it": b"{}",
    "an unknown field": b'{"package": "p", "status": "completed"}',
    "an id of one's own": b'{"package": "p", "id": "0198c0de-0000-7000-8000-000000000000"}',
    "a field in capitals": b'{"Package": "p"}',
    "a field with a NUL": b'{"package": "p", "a\\u0000b": 1}',
    "a very long field": b'{"package": "p", "' + b"x" * 60_000 + b'": 1}',
    "thousands of fields": json.dumps({"package": "p", **{f"f{n}": n for n in range(4_000)}}).encode(),
    "a prototype": b'{"package": "p", "__proto__": {"admin": true}}',
    "a number for a text": b'{"package": 1}',
    "true for a text": b'{"package": true}',
    "null for a text": b'{"package": null}',
    "a list for a text": b'{"package": ["p"]}',
    "an object for a text": b'{"package": {"$gt": ""}}',
    "an escaped NUL": b'{"package": "a\\u0000b"}',
    "an empty text": b'{"package": ""}',
    "a text too long": b'{"package": "' + b"x" * 256 + b'"}',
    "a number for a step": b'{"package": "p", "step": 2}',
    "a list for data": b'{"package": "p", "data": []}',
    "a text for data": b'{"package": "p", "data": "{}"}',
    "NaN": b'{"package": "p", "data": {"d": NaN}}',
    "infinity": b'{"package": "p", "data": {"d": Infinity}}',
    "minus infinity": b'{"package": "p", "data": {"d": [-Infinity]}}',
    "a number beyond a double": b'{"package": "p", "data": {"d": 1e999}}',
    "an integer of 4000 digits": b'{"package": "p", "data": {"d": ' + b"9" * 4_000 + b"}}",
    "17 levels": b'{"package": "p", "data": ' + b'{"a":' * 16 + b"{}" + b"}" * 16 + b"}",
    "150 levels": b'{"package": "p", "data": ' + b'{"a":' * 150 + b"1" + b"}" * 150 + b"}",
    "a user with a NUL": b'{"package": "p", "user_id": "a\\u0000b"}',
    "a user that is a number": b'{"package": "p", "user_id": 1}',
}
DUPLICATE_KEYS = b'{"package": "first", "package": "last", "data": {"a": 1, "a": 2}}'


def sent(client: httpx.Client, body: bytes, path: str = "/api/sessions", content_type: str = JSON) -> httpx.Response:
    """A POST of these bytes."""
    return client.post(path, content=body, headers={"Content-Type": content_type} if content_type else {})


@pytest.fixture
def untouched(shopper: httpx.Client, user_id: str, service: Service) -> Any:
    """The user has one session; when the test is over, nothing of theirs has changed."""
    session = begin(shopper, step="add", data={"seats": 2})

    def rows() -> tuple[Any, Any]:
        return (
            service.sql.execute("SELECT * FROM checkout_sessions WHERE user_id = %s", [user_id]).fetchall(),
            service.sql.execute("SELECT * FROM session_tasks WHERE user_id = %s", [user_id]).fetchall(),
        )

    before = rows()
    yield session
    assert rows() == before


@pytest.mark.parametrize("body", MALFORMED.values(), ids=MALFORMED)
def test_what_is_not_json(shopper: httpx.Client, untouched: dict[str, Any], body: bytes) -> None:
    path = f"/api/sessions/{untouched['id']}"
    for response in (
        sent(shopper, body),
        sent(shopper, body, f"{path}/renew"),
        sent(shopper, body, f"{path}/complete"),
        shopper.patch(path, content=body, headers={"Content-Type": JSON}),
    ):
        assert response.status_code == 400, response.text
        assert_problem(response, "malformed_json", "fix")
    for verb in ("create", "validate", "recover", "complete"):
        assert_old_refusal(sent(shopper, body, f"/api/{verb}-checkout-session"), "malformed_json")


@pytest.mark.parametrize("body", INVALID.values(), ids=INVALID)
def test_what_is_json_and_not_valid(shopper: httpx.Client, untouched: dict[str, Any], body: bytes) -> None:
    for path in ("/api/sessions", f"/api/sessions/{untouched['id']}/renew"):
        response = sent(shopper, body, path)
        assert response.status_code == 422, response.text
        assert_problem(response, "invalid_request", "fix", errors=response.json()["errors"])
        assert len(response.content) < 8_000, "does not echo what came"
        assert 0 < len(response.json()["errors"]) <= 10


def test_of_duplicate_keys_the_last_counts_as_it_does_in_javascript(shopper: httpx.Client) -> None:
    response = shopper.post(
        "/api/sessions", content=DUPLICATE_KEYS, headers={"Content-Type": JSON, "Prefer": "wait=20"}
    )
    assert (response.json()["result"]["package"], response.json()["result"]["data"]) == ("last", {"a": 2})


@pytest.mark.parametrize(
    "content_type",
    [
        "text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "application/xml", "json",
        "application/jsonp", "application/json-patch+json", "application/merge-patch+json", "*/*", "text/json",
        "application/octet-stream", ";", "a" * 5_000,
    ],
)  # fmt: skip
def test_another_content_type(shopper: httpx.Client, untouched: dict[str, Any], content_type: str) -> None:
    """A browser sends some of these across origins without asking first."""
    response = sent(shopper, b'{"package": "p"}', content_type=content_type)
    assert response.status_code == 415
    assert_problem(response, "unsupported_media_type", "fix")
    path = f"/api/sessions/{untouched['id']}"
    patched = shopper.patch(path, content=b'{"step": "x"}', headers={"Content-Type": content_type})
    assert_problem(patched, "unsupported_media_type")
    old = sent(shopper, b'{"packageId": "p"}', "/api/create-checkout-session", content_type)
    assert (old.status_code, old.json()["code"]) == (415, "unsupported_media_type")


@pytest.mark.parametrize("content_type", ["Application/JSON", "application/json;charset=utf-8", "application/json ; x"])
def test_the_content_type_may_be_written_in_many_ways(shopper: httpx.Client, content_type: str) -> None:
    assert sent(shopper, b'{"package": "p"}', content_type=content_type).status_code == 202


def test_without_a_content_type_a_body_is_taken_for_json(shopper: httpx.Client) -> None:
    assert sent(shopper, b'{"package": "p"}', content_type="").status_code == 202
    assert_problem(sent(shopper, b"package=p", content_type=""), "malformed_json")


def test_recover_needs_no_body_and_takes_no_nonsense(shopper: httpx.Client, untouched: dict[str, Any]) -> None:
    path = f"/api/sessions/{untouched['id']}/recover"
    for body, code in ((b"[]", "invalid_request"), (b'{"package": "p"}', "invalid_request"), (b"{", "malformed_json")):
        assert sent(shopper, body, path).json()["code"] == code


def test_recover_takes_nothing_an_empty_object_and_null(shopper: httpx.Client) -> None:
    path = f"/api/sessions/{uuid7()}/recover"
    assert shopper.post(path).status_code == 202
    assert sent(shopper, b"{}", path).status_code == 202
    assert sent(shopper, b"null", path).status_code == 202


@pytest.mark.parametrize(
    "path",
    [
        "/", "/api", "/api/", "/api/sessions/", "/api/session", "/API/SESSIONS", "/api/sessions/a/b", "/api/tasks",
        "/api/tasks/", "/api/sessions/a/renew/", "//api/sessions", "/api//sessions", "/api/sessions/%2e%2e/x/y",
        "/.env", "/api/sessions;x", "/openapi.json/x", "/api/unknown-checkout-session", "/%00",
        "/api/sessions/a%2Fb/history",
    ],
)  # fmt: skip
def test_paths_that_are_none(shopper: httpx.Client, path: str) -> None:
    for method in ("GET", "POST", "DELETE"):
        response = shopper.request(method, path, json={} if method == "POST" else None)
        assert response.status_code == 404, response.text
        assert_problem(response, "not_found", "fix")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/api/sessions", "POST"),
        ("DELETE", "/api/sessions/x", "GET, PATCH"),
        ("DELETE", "/api/sessions/current", "GET"),
        ("PUT", "/api/sessions/x", "GET, PATCH"),
        ("GET", "/api/sessions/x/renew", "POST"),
        ("POST", "/api/sessions/x/history", "GET"),
        ("PATCH", "/api/tasks/x", "GET"),
        ("GET", "/api/maintenance/cleanup", "POST"),
        ("DELETE", "/api/cleanup-expired-sessions", "GET, POST"),
        ("GET", "/api/create-checkout-session", "POST"),
        ("POST", "/healthz", "GET"),
        ("TRACE", "/api/sessions", "POST"),
        ("OPTIONS", "/api/sessions", "POST"),
        ("PROPFIND", "/api/sessions", "POST"),
    ],
)
def test_methods_that_a_path_has_not(shopper: httpx.Client, method: str, path: str, allowed: str) -> None:
    response = shopper.request(method, path, json={} if method in ("POST", "PUT", "PATCH") else None)
    assert response.status_code == 405
    assert response.json()["code"] == "method_not_allowed"
    assert set(response.headers["Allow"].split(", ")) == set(allowed.split(", "))


RAW = {
    "garbage": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    "a length that is no number": b"POST /api/sessions HTTP/1.1\r\nHost: x\r\nContent-Length: x\r\n\r\n",
    "a negative length": b"POST /api/sessions HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
    "two lengths": b"POST /api/sessions HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx",
    "length and chunks": b"POST /api/sessions HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\nG",
    "a chunk that is none": b"POST /api/sessions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    "a header without a name": b"GET /healthz HTTP/1.1\r\nHost: x\r\n: y\r\n\r\n",
    "a NUL in a header": b"GET /healthz HTTP/1.1\r\nHost: x\r\nX: a\0b\r\n\r\n",
    "an unknown version": b"GET /healthz HTTP/7.3\r\nHost: x\r\n\r\n",
}


@pytest.mark.parametrize("request_bytes", RAW.values(), ids=RAW)
def test_what_is_no_http_gets_400_or_the_door(service: Service, request_bytes: bytes) -> None:
    try:
        response = asyncio.run(send_raw(service.stack.url, request_bytes))
    except (OSError, ValueError, IndexError):
        pass  # the door
    else:
        assert response.status_code in (400, 413)
    assert httpx.get(f"{service.stack.url}/healthz").status_code == 200


async def hang_up(url: str, user_id: str) -> None:
    """Leave in the middle of a body, and in the middle of a wait."""
    host, port = url.removeprefix("http://").split(":")
    head = "".join(f"{name}: {value}\r\n" for name, value in headers(user_id, Prefer="wait=30").items())
    for length, body in ((1_000, b'{"package": '), (16, b'{"package": "p"}')):
        _, writer = await asyncio.open_connection(host, int(port))
        start = (
            f"POST /api/sessions HTTP/1.1\r\nHost: x\r\nContent-Type: {JSON}\r\nContent-Length: {length}\r\n{head}\r\n"
        )
        writer.write(start.encode() + body)
        await writer.drain()
        writer.close()
        await writer.wait_closed()


def test_clients_that_hang_up_make_no_fault(service: Service, enter: Enter, user_id: str) -> None:
    for _ in range(20):
        asyncio.run(hang_up(service.stack.url, user_id))
    begin(enter(user_id))
    log = next(process.log for process in service.stack.processes if process.name == "api")
    assert "request failed" not in log.read_text()


def test_no_fault_was_logged_so_far(service: Service) -> None:
    """Of all that this service was asked in these tests, nothing surprised it."""
    for process in service.stack.processes:
        if process.name == "api":
            assert "request failed" not in process.log.read_text()
            assert "Traceback" not in process.log.read_text()
