"""The outermost layer of the API: names each request, bounds its body, and turns a fault into a problem."""

import re
from typing import Any, Final

import structlog
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uuid_utils.compat import uuid7

from api.limits import BODY_LIMIT, HEAD_LIMIT
from api.problems import Problem
from db import logs

log = structlog.get_logger("api")

_REQUEST_ID: Final = re.compile(rb"[A-Za-z0-9._-]{1,64}")
_WITH_BODY: Final = frozenset({"POST", "PUT", "PATCH"})


class BodyTooLarge(Exception):
    """More bytes came than are read."""


class Edge:
    """ASGI middleware around the whole application."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers: dict[bytes, bytes] = dict(scope["headers"])
        given = headers.get(b"x-request-id", b"")
        request_id = given if _REQUEST_ID.fullmatch(given) else str(uuid7()).encode()
        scope["request_id"] = request_id.decode()
        logs.bind(request_id=scope["request_id"])
        begun = False

        async def sending(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                message["headers"] = [*message["headers"], (b"x-request-id", request_id)]
            await send(message)

        problem = _refused(scope["method"], headers)
        try:
            if problem is None:
                await self._app(scope, _bounded(receive), sending)
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


def _refused(method: str, headers: dict[bytes, bytes]) -> Problem | None:
    """What the headers alone tell to be refused."""
    if sum(map(len, headers.values())) > HEAD_LIMIT:
        return Problem("headers_too_large")
    length = headers.get(b"content-length", b"0")
    if not length.isdigit() or int(length) > BODY_LIMIT:
        return Problem("body_too_large")
    has_body = length != b"0" or b"transfer-encoding" in headers
    media_type = headers.get(b"content-type", b"application/json").partition(b";")[0].strip().lower()
    if method in _WITH_BODY and has_body and media_type != b"application/json":
        return Problem("unsupported_media_type")
    return None


def _bounded(receive: Receive) -> Receive:
    received = 0

    async def receiving() -> Any:
        nonlocal received
        message = await receive()
        if message["type"] == "http.request":
            received += len(message.get("body", b""))
            if received > BODY_LIMIT:
                raise BodyTooLarge
        return message

    return receiving
