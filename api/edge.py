"""The outermost layer of the API: names each request, bounds it, hardens its answer, turns a fault into a problem."""

import re
from typing import Any, Final

import structlog
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uuid_utils import uuid7

from api.hot import SENT, ShortWays
from api.problems import Problem
from api.rates import address_key
from api.sizes import SIZES
from db import logs

log = structlog.get_logger("api")

_REQUEST_ID: Final = re.compile(rb"[A-Za-z0-9._-]{1,64}")
_WITH_BODY: Final = frozenset({"POST", "PUT", "PATCH"})

# What every answer says to browsers, unless it says something else: it is data, for whoever asked, and nothing to run.
HARDENED: Final = {
    b"cache-control": b"no-store",
    b"content-security-policy": b"default-src 'none'; frame-ancestors 'none'",
    b"referrer-policy": b"no-referrer",
    b"x-content-type-options": b"nosniff",
}


class BodyTooLarge(Exception):
    """More bytes came than are read."""


class Edge:
    """ASGI middleware around the whole application.

    Args:
        ways: of requests that need not go through all of it.
    """

    def __init__(self, app: ASGIApp, ways: ShortWays) -> None:
        self._app = app
        self._ways = ways

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers: dict[bytes, bytes] = dict(reversed(scope["headers"]))  # of repeated ones the first counts
        scope[SENT] = headers
        given = headers.get(b"x-request-id", b"")
        request_id = given if _REQUEST_ID.fullmatch(given) else str(uuid7()).encode()
        scope["request_id"] = request_id.decode()
        logs.bind(request_id=scope["request_id"])
        begun = False

        async def sending(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                own = dict(message["headers"])
                message["headers"] = [*message["headers"], (b"x-request-id", request_id), *_hardening(own)]
            await send(message)

        try:
            problem = _refused(scope, headers)
            if problem is None:
                await (self._ways.find(scope) or self._app)(scope, _bounded(receive), sending)
                return
        except ClientDisconnect:  # nobody is there to hear an answer
            return
        except BodyTooLarge:
            problem = Problem("body_too_large")
        except Exception:
            log.exception("request failed", path=scope["path"])
            problem = Problem("internal_error")
        if not begun:
            await problem.response(scope["path"])(scope, receive, sending)


def _hardening(own: dict[bytes, bytes]) -> list[tuple[bytes, bytes]]:
    if own.keys().isdisjoint(HARDENED):
        return _ALL_HARDENED
    return [header for header in _ALL_HARDENED if header[0] not in own]


_ALL_HARDENED: Final = list(HARDENED.items())


def _refused(scope: Scope, headers: dict[bytes, bytes]) -> Problem | None:
    """What the headers alone tell to be refused."""
    if not scope["path"].startswith("/api/"):  # those count who asks where they know it
        try:
            scope["app"].state.parts.rates.address.count(address_of(scope))
        except Problem as problem:
            return problem
    if sum(map(len, headers.values())) > SIZES.head:
        return Problem("headers_too_large")
    length = headers.get(b"content-length", b"0")
    if not length.isdigit() or int(length) > SIZES.body:
        return Problem("body_too_large")
    has_body = length != b"0" or b"transfer-encoding" in headers
    media_type = headers.get(b"content-type", b"application/json").partition(b";")[0].strip().lower()
    if scope["method"] in _WITH_BODY and has_body and media_type != b"application/json":
        return Problem("unsupported_media_type")
    return None


def _bounded(receive: Receive) -> Receive:
    received = 0

    async def receiving() -> Any:
        nonlocal received
        message = await receive()
        if message["type"] == "http.request":
            received += len(message.get("body", b""))
            if received > SIZES.body:
                raise BodyTooLarge
        return message

    return receiving


def address_of(scope: Scope) -> str:
    """Where a request comes from: the connection's other end, or what a trusted proxy says."""
    client = scope.get("client")
    return address_key(client[0]) if client else ""
