"""What tests of the HTTP contract ask again and again."""

from collections.abc import Iterable
from typing import Any

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
