"""The four figures against a recount of what the clients asked and heard, before and after all of it is purged."""

import random
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import httpx
import psycopg

from tests.stack import Stack, eventually, headers
from workers.configuration import create_app
from workers.messages import PURGE_RECORDS
from workers.settings import WorkerSettings

USERS = 60
NOWHERE = "01890a5d-ac96-774b-bcce-b302099a8057"


@dataclass
class Record:
    """What one shopper asked and heard; nothing of it is read from the service's tables or metrics."""

    begun: set[str] = field(default_factory=set)
    line_of: dict[str, str] = field(default_factory=dict)
    completed: set[str] = field(default_factory=set)
    recoveries: dict[str, bool] = field(default_factory=dict)  # task -> whether it gave a session
    active: str | None = None
    latest: str | None = None


class Shopper:
    """Asks by a script of chance, one thing after the other, so that what must come of each is known."""

    def __init__(self, client: httpx.Client, number: int) -> None:
        self.chance = random.Random(number)
        self.user = f"shopper-{number}"
        self.record = Record()
        self._client = client

    def ask(self, path: str, key: str | None = None, **body: Any) -> dict[str, Any]:
        """One write, waited for."""
        more = {"Prefer": "wait=30"} | ({"Idempotency-Key": key} if key else {})
        response = self._client.post(f"/api/sessions{path}", json=body, headers=headers(self.user, **more))
        assert response.status_code in (200, 201, 409, 410), response.text
        return dict(response.json())

    def create(self) -> None:
        """Perhaps twice under one key, which is one."""
        key = f"create-{self.chance.random()}"
        for _ in range(self.chance.choice([1, 1, 3])):
            made = self.ask("", key, package="Solo")["session_id"]
        self.record.begun.add(made)
        self._follow(made, made)

    def renew(self) -> None:
        """A change of package; of a session that nobody knows, it begins a line."""
        known = self.record.latest if self.chance.random() < 0.9 else None
        task = self.ask(f"/{known or NOWHERE}/renew", package="Crew")
        if task.get("state") != "SUCCESS":
            return
        if known is None:
            self.record.begun.add(task["session_id"])
        self._follow(task["session_id"], known or task["session_id"])

    def complete(self) -> None:
        """Perhaps again, with the same payment and with another."""
        session = self.record.latest
        if session is None:
            return
        task = self.ask(f"/{session}/complete", payment_reference=f"{self.user}-{session}")
        if task.get("state") == "SUCCESS":
            self.record.completed.add(self.record.line_of[session])
            self.record.active = None
        if self.chance.random() < 0.5:
            again = self.ask(f"/{session}/complete", payment_reference=f"{self.user}-{session}")
            assert again.get("state") == task.get("state")
        if self.chance.random() < 0.3:
            other = self.ask(f"/{session}/complete", payment_reference=f"{self.user}-other-{session}")
            assert other.get("state") is None, "refused"

    def recover(self) -> None:
        """What is lost, what is not, or what never was."""
        known = sorted(self.record.line_of)
        session = self.chance.choice([*known, *([self.record.latest] * 4), NOWHERE]) or NOWHERE
        task = self.ask(f"/{session}/recover")
        # The refused name their task in the problem, the others are it.
        task_id, gave = task.get("task_id") or task["id"], "task_id" not in task
        if session != self.record.active:
            self.record.recoveries[task_id] = gave
        if gave:
            self._follow(task["session_id"], task["result"]["previous_session_id"] or task["session_id"])

    def live(self, steps: int) -> None:
        """Some hours of a day."""
        for _ in range(steps):
            self.chance.choice([self.create, self.renew, self.renew, self.complete, self.recover, self.recover])()

    def sleep(self) -> None:
        """A night: what was active is not any more."""
        self.record.active = None

    def _follow(self, session: str, before: str) -> None:
        line = self.record.line_of.get(session) or self.record.line_of.get(before, session)
        self.record.line_of[session] = line
        self.record.active = self.record.latest = session


AGE = """
UPDATE checkout_sessions SET created_at = created_at - %(by)s::interval, updated_at = updated_at - %(by)s::interval,
    expires_at = expires_at - %(by)s::interval, completed_at = completed_at - %(by)s::interval,
    line_began_at = line_began_at - %(by)s::interval
"""


@contextmanager
def sql(stack: Stack) -> Iterator[psycopg.Connection[Any]]:
    """To turn the clock."""
    with psycopg.connect(stack.env["DATABASE_URL"].replace("+psycopg", ""), autocommit=True) as connection:
        yield connection


def told(stack: Stack) -> tuple[float | None, ...]:
    """The four figures of /metrics."""
    text = httpx.get(f"{stack.url}/metrics").text
    found = dict(re.findall(r"^checkout_sessions_(\w+) (\S+)$", text, re.MULTILINE))
    names = ("active", "completion_ratio", "recovery_success_ratio", "cleanup_runs_24h")
    return tuple(float(found[name]) if name in found else None for name in names)


def cleanup(stack: Stack) -> None:
    """By hand, over HTTP."""
    operator = headers("operator", "service_role", Prefer="wait=30")
    task = httpx.post(f"{stack.url}/api/maintenance/cleanup", headers=operator, timeout=60)
    assert task.json()["state"] == "SUCCESS"


def purge(stack: Stack) -> None:
    """As beat sends it."""
    settings = WorkerSettings(database_url=stack.env["DATABASE_URL"], redis_url=stack.env["REDIS_URL"])  # type: ignore[arg-type]
    with create_app(settings, {}) as app:
        app.send_task(PURGE_RECORDS)
    done = "SELECT count(*) FROM maintenance_runs WHERE task = %s AND finished_at IS NOT NULL AND error IS NULL"
    with sql(stack) as connection:
        eventually(lambda: connection.execute(done, [PURGE_RECORDS]).fetchone() == (1,), "the purge is done")


def test_the_four_figures_are_what_the_clients_saw(stack: Stack) -> None:
    for name in ("api", "worker", "maintenance"):
        stack.start(name)
    with httpx.Client(base_url=stack.url, timeout=60) as client, ThreadPoolExecutor(8) as threads:
        shoppers = [Shopper(client, number) for number in range(USERS)]
        list(threads.map(lambda shopper: shopper.live(5), shoppers))
        asleep = [shopper for shopper in shoppers if shopper.chance.random() < 0.6]
        with sql(stack) as connection:
            users = [shopper.user for shopper in asleep]
            connection.execute(f"{AGE} WHERE user_id = ANY(%(users)s)", {"by": "25 hours", "users": users})
        for shopper in asleep:
            shopper.sleep()
        cleanup(stack)
        list(threads.map(lambda shopper: shopper.live(5), shoppers))
    cleanup(stack)

    records = [shopper.record for shopper in shoppers]
    begun = sum(len(record.begun) for record in records)
    completed = sum(len(record.completed) for record in records)
    recoveries = [gave for record in records for gave in record.recoveries.values()]
    active = sum(record.active is not None for record in records)
    assert min(active, completed, begun - completed, sum(recoveries), recoveries.count(False)) > 10, "all happened"
    rates = (completed / begun, sum(recoveries) / len(recoveries))
    eventually(lambda: told(stack) == (active, *rates, 4), f"{active}, {rates}, 4")

    with sql(stack) as connection:
        size = "SELECT (SELECT count(*) FROM checkout_sessions), (SELECT count(*) FROM session_tasks)"
        before = connection.execute(size).fetchone()
        connection.execute(f"{AGE} WHERE status <> 'active' OR expires_at <= now()", {"by": "8 days"})
        connection.execute(
            "UPDATE session_tasks SET accepted_at = accepted_at - %(d)s::interval, finished_at = finished_at - %(d)s",
            {"d": timedelta(days=8)},
        )
        cleanup(stack)
        purge(stack)
        after = connection.execute(size).fetchone()
    assert before
    assert after
    assert after[0] == active + completed, "of the sessions only these are left"
    assert after[1] < before[1] / 4, "of the tasks only payments that were refused"
    eventually(lambda: told(stack) == (active, *rates, 6), f"{active}, {rates}, 6")
