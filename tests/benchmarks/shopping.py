"""Creates of one user at the same time."""

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx

from benchmarks import requests


def create_at_once(port: int, number: int, clients: int) -> list[Any]:
    """That many creates of the user of that number; returns the sessions."""
    method, path, token, body = requests.create(number).split("\t")

    def ask(_: int) -> Any:
        headers = {"Authorization": f"Bearer {token}"}
        answer = httpx.request(method, f"http://127.0.0.1:{port}{path}", json=json.loads(body), headers=headers)
        assert answer.status_code == 201, answer.text
        return answer.json()

    with ThreadPoolExecutor(clients) as pool:
        return list(pool.map(ask, range(clients)))
