"""The requests that a load sends: a line each, with the token of a user of its own."""

import json
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jwt

SECRET = "a secret of the benchmarks, longer than thirty-two bytes"
USERS = 10_000  # distinct ones; each begins with an active session


def user_id(number: int) -> str:
    """The user of that number, from 1."""
    return f"user-{number:08}"


def token(user: str) -> str:
    """A bearer token of that user, valid for a day."""
    expires = int(time.time()) + 86_400
    claims = {"sub": user, "role": "authenticated", "aud": "authenticated", "exp": expires, "iat": expires - 86_400}
    return jwt.encode(claims, SECRET, "HS256")


def line(method: str, path: str, user: str, body: dict[str, Any] | None = None) -> str:
    """One request."""
    return "\t".join([method, path, token(user), "" if body is None else json.dumps(body, separators=(",", ":"))])


def write(file: Path, lines: Iterable[str]) -> Path:
    """Keep requests in a file, which is returned."""
    file.write_text("\n".join(lines) + "\n")
    return file


def create(number: int) -> str:
    """The user of that number begins a session."""
    data = {"adults": 2, "children": number % 4, "coupon": "SPRING", "newsletter": False}
    body = {"package": f"family-{number % 7}", "step": "details", "data": data}
    return line("POST", "/api/sessions", user_id(number), body)


def creates(file: Path, users: int = USERS) -> Path:
    """One create for each of that many users."""
    return write(file, map(create, range(1, users + 1)))
