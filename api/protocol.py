"""HTTP as uvicorn speaks it, within bounds: of a request's head, of slow clients, and of open connections."""

import asyncio
from collections import Counter
from typing import Final, cast

import orjson
import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from api.edge import HARDENED
from api.problems import KINDS, problem_json, retry_header
from api.rates import address_key
from api.settings import ApiSettings
from api.sizes import SIZES

NEVER: Final = float("inf")
NEIGHBOURS: Final[Counter[str]] = Counter()  # open connections by address


def _last_words(code: str) -> bytes:
    """A problem, for a connection that ends with it."""
    body = orjson.dumps(problem_json(code))
    headers = {
        **{name.decode(): value.decode() for name, value in HARDENED.items()},
        "connection": "close",
        "content-length": str(len(body)),
        "content-type": "application/problem+json",
        **retry_header(code),
    }
    lines = [f"HTTP/1.1 {KINDS[code].status} {KINDS[code].title}", *(f"{name}: {headers[name]}" for name in headers)]
    return "\r\n".join([*lines, "", ""]).encode() + body


class BoundedProtocol(HttpToolsProtocol):
    """Hangs up on a head that goes on beyond the limit, and on who is too slow: `sweep` finds those.

    By when something must have happened is written down as it begins, which costs less than a timer for each.
    """

    _in_head = False
    _head = 0
    _due = NEVER  # of the head or the body that is under way
    _unsent_since = NEVER
    _address: str | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client comes. One too many, in all or from its address, has to leave."""
        super().connection_made(cast("asyncio.Transport", transport))
        settings = self._settings = _settings_of(self.config)
        self._due = self.loop.time() + settings.head_seconds
        host = self.client[0] if self.client else ""
        self._address = address_key(host)
        NEIGHBOURS[self._address] += 1
        most = settings.address_connection_limit if not settings.trusts(host) else 0
        if 0 < settings.connection_limit < len(self.connections) or 0 < most < NEIGHBOURS[self._address]:
            self._end("too_many_connections")

    def connection_lost(self, exc: Exception | None) -> None:
        """It has left."""
        super().connection_lost(exc)
        if self._address is not None:
            NEIGHBOURS[self._address] -= 1
            if not NEIGHBOURS[self._address]:
                del NEIGHBOURS[self._address]
            self._address = None

    def data_received(self, data: bytes) -> None:
        """Some bytes, of a head or a body."""
        if self._due == NEVER and (self.cycle is None or self.cycle.response_complete):
            self._due = self.loop.time() + self._settings.head_seconds
        super().data_received(data)
        if self._in_head:
            self._head += len(data)
            if self._head > SIZES.head:
                self._end("headers_too_large")

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        self._in_head = True
        self._due = self.loop.time() + self._settings.head_seconds

    def on_headers_complete(self) -> None:
        """Its head is complete."""
        self._in_head, self._head = False, 0
        self._due = self.loop.time() + self._settings.body_seconds
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """It is complete."""
        self._due = NEVER
        super().on_message_complete()

    def sweep(self, now: float) -> None:
        """Hang up if the client is too slow.

        Args:
            now: by the loop's clock.
        """
        if now >= self._due:
            self._end("request_timed_out")
        if not self.transport.get_write_buffer_size():
            self._unsent_since = NEVER
        elif self._unsent_since == NEVER:
            self._unsent_since = now
        elif now - self._unsent_since >= self._settings.send_seconds:
            self.transport.abort()

    def _end(self, code: str) -> None:
        """Say why, unless an answer is under way or was given already, and hang up."""
        self._due = NEVER
        if self._in_head or self.cycle is None or not self.cycle.response_started:
            self.transport.write(_last_words(code))
        self.transport.close()


def _settings_of(config: uvicorn.Config) -> ApiSettings:
    assert isinstance(config.app, FastAPI)
    settings: ApiSettings = config.app.state.parts.settings
    return settings
