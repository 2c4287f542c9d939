"""SIGTERM: everyone who waits gets an answer, nothing that was accepted is lost, and the process is gone in time."""

import asyncio
import base64
import json
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress

import httpx
import psycopg
import pytest
import redis

from api import state
from tests.api.asking import burst, posted
from tests.api.conftest import Service
from tests.api.contract import Contract, new_user
from tests.stack import Process, eventually, headers

SECONDS = 10.0


@pytest.fixture(scope="module")
def stoppable(services: Callable[..., Service]) -> Service:
    """A service without workers, whose API comes and goes."""
    return services("stoppable")


@pytest.fixture
def api(stoppable: Service) -> Iterator[Process]:
    """Its API."""
    process = stoppable.stack.start("api")
    yield process
    process.kill()


def requested(method: str, path: str, user_id: str, role: str = "authenticated") -> bytes:
    """A request without a body, as bytes."""
    lines = [f"{method} {path} HTTP/1.1", "Host: x", "Connection: close", "Content-Length: 0"]
    lines += [f"{name}: {value}" for name, value in headers(user_id, role).items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


async def answers_to(
    url: str, process: Process, requests: list[bytes], begun: Callable[[], bool]
) -> list[httpx.Response]:
    """What is answered to requests that are under way when the process is told to stop."""
    sent = asyncio.create_task(burst([url], requests))
    await asyncio.to_thread(eventually, begun, "all requests are under way")
    assert not sent.done()
    process.signal(signal.SIGTERM)
    return await sent


def test_whoever_waits_is_let_go(stoppable: Service, api: Process, contract: Contract) -> None:
    user, url = new_user(), stoppable.stack.url
    accepted = httpx.post(f"{url}/api/sessions", json={"package": "p"}, headers=headers(user))
    waiting = {
        "polls": [requested("GET", f"{accepted.headers['Location']}?wait=30", user)] * 30,
        "creates": [posted("/api/sessions", headers(user, Prefer="wait=30"), {"package": "p"})] * 10,
        "old creates": [posted("/api/create-checkout-session", headers(user), {"packageId": "p"})] * 10,
        "cleanups": [posted("/api/maintenance/cleanup", headers("o", "service_role", Prefer="wait=30"), {})] * 3,
        "old recovers": [posted("/api/recover-checkout-session", headers(user), {"sessionId": "s"})] * 2,
        "old completions": [
            posted("/api/complete-checkout-session", headers(user), {"sessionId": "s", "paymentReference": "p"})
        ]
        * 2,
        "old cleanups": [
            requested(method, "/api/cleanup-expired-sessions", "o", "service_role") for method in ("GET", "POST")
        ],
    }

    def begun() -> bool:
        return (
            stoppable.count("session_tasks", user) == 25
            and stoppable.one("SELECT count(*) AS n FROM maintenance_runs")["n"] == 10
        )

    answers = asyncio.run(answers_to(url, api, [request for some in waiting.values() for request in some], begun))
    assert api.popen.wait(SECONDS) in (0, -signal.SIGTERM)
    for answer in answers:
        contract.checked(answer)
    rest = iter(answers)
    got = {name: [next(rest) for _ in some] for name, some in waiting.items()}
    assert Counter((a.status_code, a.json()["state"]) for a in got["polls"]) == {(200, "PENDING"): 30}
    for name in ("creates", "cleanups"):
        assert {(a.status_code, a.json()["state"]) for a in got[name]} == {(202, "PENDING")}
    for name in ("old creates", "old recovers", "old completions", "old cleanups"):
        assert {(a.status_code, a.json()["code"], a.json()["next"]) for a in got[name]} == {
            (504, "still_pending", "retry")
        }
        assert {a.headers["Retry-After"] for a in got[name]} == {"2"}


def test_what_is_being_accepted_is_accepted(stoppable: Service, api: Process) -> None:
    """Postgres is slow at the moment in which the process is told to stop."""
    users = [new_user() for _ in range(50)]
    requests = [posted("/api/sessions", headers(user), {"package": "p"}) for user in users]

    async def stop() -> list[httpx.Response]:
        with psycopg.connect(stoppable.sql.info.dsn, password=stoppable.sql.info.password) as slow:
            slow.execute("LOCK TABLE session_tasks IN EXCLUSIVE MODE")

            sent = asyncio.create_task(burst([stoppable.stack.url], requests))
            await asyncio.to_thread(eventually, stoppable.waits_for_a_lock, "an accept is under way")
            api.signal(signal.SIGTERM)
        return await sent

    answers = asyncio.run(stop())
    assert api.popen.wait(SECONDS) in (0, -signal.SIGTERM)
    assert {answer.status_code for answer in answers} <= {202, 503}
    accepted = [answer.json()["task_id"] for answer in answers if answer.status_code == 202]
    stored = stoppable.sql.execute("SELECT id::text FROM session_tasks WHERE id = ANY(%s::uuid[])", [accepted])
    assert {row["id"] for row in stored.fetchall()} == set(accepted)
    assert rung(stoppable) >= set(accepted)


def rung(service: Service) -> set[str]:
    """The ids of all tasks that doorbells in Redis name."""
    with redis.Redis.from_url(service.stack.env["REDIS_URL"]) as broker:
        messages = [json.loads(message) for message in broker.lrange("sessions", 0, -1)]
    arguments = [json.loads(base64.b64decode(message["body"]))[0] for message in messages]
    return {task_id for ids, *_ in arguments for task_id in ids}


def test_new_requests_go_to_another_process(stoppable: Service, api: Process) -> None:
    """While it goes, it takes no more; nothing is half answered."""
    users = [new_user() for _ in range(200)]

    async def stop() -> list[httpx.Response | BaseException]:
        requests = [posted("/api/sessions", headers(user), {"package": "p"}) for user in users]
        sent = [asyncio.create_task(burst([stoppable.stack.url], [request])) for request in requests]
        await asyncio.sleep(0)
        api.signal(signal.SIGTERM)
        done = await asyncio.gather(*sent, return_exceptions=True)
        return [one if isinstance(one, BaseException) else one[0] for one in done]

    answers = asyncio.run(stop())
    assert api.popen.wait(SECONDS) in (0, -signal.SIGTERM)
    for answer in answers:
        if isinstance(answer, BaseException):
            assert isinstance(answer, OSError | IndexError), answer  # refused, or hung up on before a word
        else:
            assert answer.status_code == 202
            assert stoppable.one("SELECT 1 AS n FROM session_tasks WHERE id = %s", answer.json()["task_id"])


async def stubborn() -> None:
    """Goes on after the first cancellation, as a loop does whose library swallowed it."""
    for _ in range(2):
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()


def test_a_loop_that_misses_its_cancellation_ends_all_the_same() -> None:
    async def end() -> bool:
        loop = asyncio.create_task(stubborn())
        await asyncio.sleep(0)
        await state.end({loop})
        return loop.done()

    assert asyncio.run(end())
