"""Clients that wait: thousands of raw sockets in one event loop, which cost little themselves."""

import asyncio
import time
from collections.abc import Sequence

from benchmarks.requests import token

RETRY_SECONDS = 2


class Waiter(asyncio.Protocol):
    """One client: asks for its task, and asks again when the time is over, until the task is finished.

    It does as it is told by a 503, too: it asks again a little later, and counts that.

    Args:
        port: of the API.
        task_id: whose result it waits for.
        user: whose task it is.
        wait: seconds that one request may take.
    """

    def __init__(self, port: int, task_id: str, user: str, wait: int) -> None:
        self.port = port
        self.told: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self.refused = 0
        line = f"GET /api/tasks/{task_id}?wait={wait} HTTP/1.1"
        self._request = f"{line}\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {token(user)}\r\n\r\n".encode()
        self._answer = b""
        self._transport: asyncio.Transport | None = None

    async def connect(self) -> None:
        """Connect and ask."""
        await asyncio.get_running_loop().create_connection(lambda: self, "127.0.0.1", self.port)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._ask()

    def data_received(self, data: bytes) -> None:
        """Take an answer that says what became of the task as told, now."""
        self._answer += data
        head, separator, body = self._answer.partition(b"\r\n\r\n")
        if not separator or len(body) < _length(head):
            return
        if head.startswith(b"HTTP/1.1 503"):
            self.refused += 1
            asyncio.get_running_loop().call_later(RETRY_SECONDS, self._ask)
        elif not head.startswith(b"HTTP/1.1 200") or b'"state":"FAILURE"' in body:
            self._fail(ConnectionError(self._answer[:300].decode()))
        elif b'"state":"PENDING"' in body:
            self._ask()
        elif not self.told.done():
            self.told.set_result(time.time())

    def connection_lost(self, exc: Exception | None) -> None:
        """The server went away: a fault, unless everything was told."""
        self._fail(exc or ConnectionError("closed"))

    def close(self) -> None:
        """Go."""
        self.told.cancel()
        if self._transport:
            self._transport.abort()

    def _ask(self) -> None:
        self._answer = b""
        assert self._transport is not None
        if not self._transport.is_closing():
            self._transport.write(self._request)

    def _fail(self, error: Exception) -> None:
        if not self.told.done():
            self.told.set_exception(error)


def _length(head: bytes) -> int:
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return int(line.partition(b":")[2])
    return 0


async def connect_all(waiters: Sequence[Waiter], seconds: float) -> None:
    """Connect one after the other, spread over that many seconds, as shoppers come."""
    began = time.monotonic()
    for number, waiter in enumerate(waiters):
        await asyncio.sleep(began + number * seconds / len(waiters) - time.monotonic())
        await waiter.connect()
