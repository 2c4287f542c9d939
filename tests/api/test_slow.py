"""Clients that are slow on purpose, and too many of them: each is let go in time, and the others are served."""

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path

import httpx
import pytest

from tests.api.asking import begin, split
from tests.api.conftest import Service
from tests.api.contract import Contract, assert_problem, new_user
from tests.stack import eventually, headers

pytestmark = pytest.mark.usefixtures("tidy")

HEAD, BODY, SEND, CONNECTIONS = 1.0, 1.5, 2.0, 12
GRACE = 20.0  # seconds that a busy machine may take beyond a limit


@pytest.fixture(scope="module")
def impatient(service: Service) -> str:
    """An API with little time."""
    limits = {"HEAD_SECONDS": HEAD, "BODY_SECONDS": BODY, "SEND_SECONDS": SEND, "ADDRESS_CONNECTION_LIMIT": CONNECTIONS}
    return service.another_api(
        **{name: str(value) for name, value in limits.items()}, HISTORY_LIMIT="1000", RATE_LIMIT="0"
    )


@contextmanager
def connected(url: str, buffer: int = 0) -> Iterator[socket.socket]:
    """A connection whose every read ends in time, or the test fails."""
    host, port = url.removeprefix("http://").split(":")
    with socket.socket() as client:
        if buffer:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        client.settimeout(GRACE)
        client.connect((host, int(port)))
        yield client


def rest(client: socket.socket) -> bytes:
    """What comes until the other end hangs up."""
    read = b""
    while True:
        try:
            some = client.recv(65_536)
        except ConnectionResetError:
            return read
        if not some:
            return read
        read += some


def is_served(client: socket.socket) -> bool:
    """Whether a request is answered."""
    client.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
    read = b""
    while not read.endswith(b"}"):
        some = client.recv(65_536)
        if not some:
            return False
        read += some
    return read.startswith(b"HTTP/1.1 200 ")


def answer(raw: bytes, method: str, url: str) -> httpx.Response:
    """The answer in these bytes."""
    head, _, body = raw.partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    response = httpx.Response(int(status.split()[1]), headers=[split(line) for line in lines], content=body)
    response.request = httpx.Request(method, url)
    response.elapsed = timedelta()
    return response


def timed_out(raw: bytes, contract: Contract) -> None:
    """The words are those of the problem."""
    response = answer(raw, "GET", "http://x/slow")
    assert response.status_code == 408
    assert_problem(response, "request_timed_out", "retry")
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    contract.codes.add(response.json()["code"])


STARTS = {
    "nothing": b"",
    "half a line": b"GET /heal",
    "half a head": b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Slow: a",
    "only line breaks": b"\r\n\r\n",
}


@pytest.mark.parametrize("start", STARTS.values(), ids=STARTS)
def test_a_head_that_does_not_end(impatient: str, contract: Contract, start: bytes) -> None:
    with connected(impatient) as client:
        began = time.monotonic()
        client.sendall(start)
        timed_out(rest(client), contract)
        assert time.monotonic() - began >= HEAD - 0.1


def test_a_head_that_drips(impatient: str, contract: Contract) -> None:
    """Each byte is in time, and all together are not."""
    with connected(impatient) as client:
        client.settimeout(0.1)
        client.sendall(b"GET /healthz HTTP/1.1\r\nX-Slow: ")
        read, until = b"", time.monotonic() + GRACE
        while not read:
            assert time.monotonic() < until
            try:
                client.sendall(b"a")
                read = client.recv(65_536)
            except TimeoutError:
                pass
        timed_out(read, contract)


def test_a_second_head_that_does_not_end(impatient: str, contract: Contract) -> None:
    with connected(impatient) as client:
        assert is_served(client)
        client.sendall(b"GET /healthz")
        timed_out(rest(client), contract)
    with connected(impatient) as client:
        assert is_served(client)
        client.sendall(b"\r\n")  # begins nothing, so there is nothing to answer
        assert rest(client) == b""


def test_a_body_that_does_not_come(impatient: str, contract: Contract, service: Service) -> None:
    user = new_user()
    head = "".join(f"{name}: {value}\r\n" for name, value in headers(user).items())
    with connected(impatient) as client:
        client.sendall(
            f"POST /api/sessions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n{head}".encode()
            + b'Content-Length: 16\r\n\r\n{"package":'
        )
        timed_out(rest(client), contract)
    assert service.count("session_tasks", user) == 0


def test_a_body_that_comes_after_its_answer(impatient: str) -> None:
    """Who is not let in need not finish, and may not stay."""
    with connected(impatient) as client:
        client.sendall(b"POST /api/sessions HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n")
        assert b"token_missing" in rest(client)


def test_an_answer_that_is_not_read(impatient: str, service: Service) -> None:
    """Many of them, so that no buffer takes all."""
    user = new_user()
    with httpx.Client(base_url=service.stack.url, headers=headers(user)) as client:
        session = begin(client, data={"d": "x" * 60_000})
    head = "".join(f"{name}: {value}\r\n" for name, value in headers(user).items())
    ask = f"GET /api/sessions/{session['id']} HTTP/1.1\r\nHost: x\r\n{head}\r\n".encode()
    with connected(impatient, buffer=4_096) as client:
        client.sendall(ask * 200)
        port = client.getsockname()[1]
        eventually(lambda: not is_open(port), "the server hangs up", GRACE)


def is_open(port: int) -> bool:
    """Whether the server still holds its end of the connection from this port."""
    ours = f":{port:04X}"
    connections = (line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:])
    return any(remote.endswith(ours) and state == "01" for _, _, remote, state, *_ in connections)


def test_a_long_poll_is_not_slow(idle: Service) -> None:
    """It waits for longer than a head or a body may take."""
    url = idle.another_api(HEAD_SECONDS="0.5", BODY_SECONDS="0.5", SEND_SECONDS="0.5")
    with httpx.Client(base_url=url, headers=headers(new_user()), timeout=GRACE) as client:
        accepted = client.post("/api/sessions", json={"package": "p"})
        assert client.get(f"{accepted.headers['Location']}?wait=3").json()["state"] == "PENDING"


def test_connections_of_one_address_are_bounded(impatient: str, contract: Contract) -> None:
    with ExitStack() as stack:
        crowd = [stack.enter_context(connected(impatient)) for _ in range(CONNECTIONS)]
        assert all(is_served(client) for client in crowd)
        with connected(impatient) as one_more:
            response = answer(rest(one_more), "GET", "http://x/slow")
        assert response.status_code == 503
        assert_problem(response, "too_many_connections", "retry")
        assert int(response.headers["Retry-After"]) >= 1
        contract.codes.add(response.json()["code"])
        assert is_served(crowd[0]), "who was here before stays"
    eventually(lambda: httpx.get(f"{impatient}/healthz").status_code == 200, "their places are free again")


def test_connections_of_all_are_bounded(service: Service) -> None:
    url = service.another_api(CONNECTION_LIMIT="3")
    with ExitStack() as stack:
        for _ in range(3):
            assert is_served(stack.enter_context(connected(url)))
        with connected(url) as one_more:
            assert b"too_many_connections" in rest(one_more)
    eventually(lambda: httpx.get(f"{url}/healthz").status_code == 200)
