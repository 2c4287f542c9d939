"""What tests of the HTTP contract ask again and again."""

import asyncio
import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import httpx

from tests.stack import eventually


def begin(client: httpx.Client, **body: Any) -> dict[str, Any]:
    """Create a session and wait for it."""
    response = client.post("/api/sessions", json={"package": "silver", **body}, headers={"Prefer": "wait=20"})
    assert response.status_code == 201, response.text
    session: dict[str, Any] = response.json()["result"]
    return session


def finished(client: httpx.Client, accepted: httpx.Response) -> dict[str, Any]:
    """Poll until the task is finished."""
    assert accepted.status_code == 202, accepted.text

    def look() -> dict[str, Any] | None:
        task: dict[str, Any] = client.get(accepted.headers["Location"]).json()
        return task if task["state"] != "PENDING" else None

    return eventually(look, "the task is finished")


def statuses(responses: Iterable[httpx.Response]) -> set[int]:
    """The different statuses of some answers."""
    return {response.status_code for response in responses}


async def send_raw(url: str, request: bytes) -> httpx.Response:
    """One request on a connection of its own, byte for byte; it must ask for the connection to be closed."""
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    try:
        writer.write(request)
        head, _, body = (await asyncio.wait_for(reader.read(-1), 60)).partition(b"\r\n\r\n")
    finally:
        writer.close()
        await writer.wait_closed()
    status_line, *lines = head.decode().split("\r\n")
    response = httpx.Response(int(status_line.split()[1]), headers=[split(line) for line in lines], content=body)
    method, path, _ = request.split(b" ", 2)
    response.request = httpx.Request(method.decode(), url + path.decode())
    response.elapsed = timedelta()
    return response


def split(line: str) -> tuple[str, str]:
    """A header's name and value."""
    name, _, value = line.partition(": ")
    return name, value


def posted(path: str, headers: Mapping[str, str], body: Any) -> bytes:
    """A POST as bytes."""
    content = json.dumps(body).encode()
    given = {
        **headers,
        "Host": "localhost",
        "Connection": "close",
        "Content-Type": "application/json",
        "Content-Length": str(len(content)),
    }
    lines = [f"POST {path} HTTP/1.1", *(f"{name}: {value}" for name, value in given.items()), "", ""]
    return "\r\n".join(lines).encode() + content


async def burst(urls: Sequence[str], requests: Iterable[bytes]) -> list[httpx.Response]:
    """All of them at once, each on a connection of its own, at one URL after the other."""
    return await asyncio.gather(*(send_raw(urls[n % len(urls)], request) for n, request in enumerate(requests)))
