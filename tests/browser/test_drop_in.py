"""docs/drop-in.md is true: each of its examples, in its order, against the real service."""

import json
import re
from typing import Any
from uuid import UUID

import httpx
import pytest

from tests.browser.conftest import Shop
from tests.stack import ROOT, headers

EXAMPLE = re.compile(
    r"```http\n(?P<method>\w+) (?P<path>\S+)\n(?P<body>\{.*?)?\n?\n(?P<status>\d{3})\n(?P<answer>\{.*?)\n```"
)


def check(told: Any, found: Any, name: str) -> None:
    """Compare an answer with the example's; `$word` stands for what differs each time."""
    match told:
        case "$id":
            UUID(found)
        case "$time":
            assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", found), name
        case "$count":
            assert found >= 0, name
        case "$session":
            assert {"id", "userId", "status", "expiresAt", "secondsLeft", "previousSessionId"} <= found.keys(), name
        case dict():
            assert found.keys() == told.keys(), name
            for key, value in told.items():
                check(value, found[key], f"{name}.{key}")
        case _:
            assert found == told, name


def test_the_examples_of_the_drop_in_page(shop: Shop) -> None:
    shop.mend()
    examples = list(EXAMPLE.finditer((ROOT / "docs" / "drop-in.md").read_text()))
    assert len(examples) == 7
    session_id = ""
    for example in examples:
        is_cleanup = "cleanup" in example["path"]
        role = "service_role" if is_cleanup else "authenticated"
        body = (example["body"] or "").replace("$sessionId", session_id)
        answer = httpx.request(
            example["method"],
            shop.stack.url + example["path"],
            content=body or None,
            headers=headers("drop-in", role, **{"Content-Type": "application/json"}),
            timeout=60,
        )
        assert answer.status_code == int(example["status"]), answer.text
        check(json.loads(example["answer"]), answer.json(), example["path"])
        session_id = answer.json().get("sessionId", session_id)


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_cron_job_may_call_the_cleanup_either_way(shop: Shop, method: str) -> None:
    shop.mend()
    url = f"{shop.stack.url}/api/cleanup-expired-sessions"
    answer = httpx.request(method, url, headers=headers("cron", "service_role"), timeout=60)
    assert answer.json().keys() == {"expired", "deleted"}
    assert httpx.request(method, url, headers=headers("shopper")).status_code == 403
