"""One life, asked for through the API and executed by real workers and beat, as it is told afterwards: in the log lines
of the processes, over HTTP, and by `make session`."""

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from local.servers import EmbeddedPostgres, EmbeddedRedis
from tests.conftest import create_database
from tests.stack import ROOT, Stack, eventually

pytestmark = pytest.mark.acceptance

CART = "a seat by the window"  # of the shopper, never to be logged
PAID = "pi_secret"


@dataclass
class Life:
    """What was done: ids of sessions in order, tasks by what they were, and the stack, which has ended."""

    stack: Stack
    sessions: list[str]
    tasks: dict[str, str]
    history: dict[str, Any]
    seen_by_operators: dict[str, Any]

    def lines(self, event: str, **values: Any) -> list[dict[str, Any]]:
        """The log lines of all processes with this event and these values."""
        found = [line | {"process": process.name} for process in self.stack.processes for line in read(process.log)]
        return [line for line in found if line["event"] == event and values.items() <= line.items()]

    def line(self, event: str, **values: Any) -> dict[str, Any]:
        """The one of them."""
        (line,) = self.lines(event, **values)
        return line

    def told(self, wanted: str) -> str:
        """What `make session` prints."""
        command = [sys.executable, "-m", "workers.history", wanted]
        done = subprocess.run(command, cwd=ROOT, env=self.stack.env, capture_output=True, text=True, check=False)
        return done.stdout + done.stderr


def read(log: Path) -> list[dict[str, Any]]:
    """Each line is JSON."""
    return [json.loads(line) for line in log.read_text().splitlines()]


@pytest.fixture(scope="module")
def life(
    postgres: EmbeddedPostgres, redis_server: EmbeddedRedis, template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Life]:
    """Create, go a step, renew, expire, be refused, recover, complete, clean up; each request with an id of its own."""
    url = create_database(postgres, "records", template)
    folder = tmp_path_factory.mktemp("records")
    # As root, which no container is, Celery warns before there is a log.
    settings = {"EXPIRE_INTERVAL_SECONDS": "0.3", "PYTHONWARNINGS": "ignore:You're running the worker"}
    with (
        Stack(url, redis_server.url.rsplit("/", 1)[0] + "/3", folder, **settings) as stack,
        psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as sql,
    ):
        stack.start_all()
        with stack.client("ann", Prefer="wait=30") as ann, stack.client("ops", "service_role", Prefer="wait=30") as ops:
            tasks: dict[str, str] = {}

            def ask(name: str, path: str, **body: Any) -> str:
                answer = ann.post(f"/api/sessions{path}", json=body, headers={"X-Request-Id": name})
                found = answer.json()
                tasks[name] = found["id"] if answer.is_success else found["task_id"]
                return str(found.get("session_id"))

            first = ask("creating", "", package="silver", step="add", data={"wish": CART})
            patch = {"step": "packages", "data": {"wish": CART}}
            ann.patch(f"/api/sessions/{first}", json=patch, headers={"X-Request-Id": "going"}).raise_for_status()
            second = ask("renewing", f"/{first}/renew", package="gold")
            sql.execute("UPDATE checkout_sessions SET expires_at = now() WHERE id = %s", [second])
            marked = "SELECT status = 'expired' FROM checkout_sessions WHERE id = %s"
            eventually(lambda: sql.execute(marked, [second]).fetchone() == (True,), "the sweep marks it")
            ask("paying-late", f"/{second}/complete", payment_reference=PAID)
            third = ask("recovering", f"/{second}/recover")
            ask("paying", f"/{third}/complete", payment_reference=PAID)
            cleaned = ops.post("/api/maintenance/cleanup", headers={"X-Request-Id": "cleaning"})
            tasks["cleaning"] = cleaned.json()["id"]
            history: httpx.Response = ann.get(f"/api/sessions/{first}/history")
            seen_by_operators = ops.get(f"/api/sessions/{first}/history")
            sql.execute("ALTER TABLE checkout_sessions RENAME TO away")  # a fault, for a while
            ann.get(f"/api/sessions/{first}", headers={"X-Request-Id": "reading-in-vain"})
            body = {"package": "silver", "data": {"wish": CART}}
            ann.post("/api/sessions", json=body, headers={"X-Request-Id": "creating-in-vain"})
            sql.execute("ALTER TABLE away RENAME TO checkout_sessions")
        for process in stack.processes:
            process.stop()
        yield Life(stack, [first, second, third], tasks, history.json(), seen_by_operators.json())


STEPS = [
    ("accepted", 0, "creating", "create by ann"),
    ("done", 0, "creating", "create after"),
    ("began", 0, "creating", "created: silver, step packages"),
    ("accepted", 0, "renewing", "renew by ann"),
    ("done", 1, "renewing", "renew after"),
    ("invalidated", 0, "renewing", "a renewal took its place"),
    ("began", 1, "renewing", "renewed: gold, step packages"),
    ("expired", 1, None, "its time was over"),
    ("marked", 1, None, "by a sweep (asked for by beat)"),
    ("accepted", 1, "paying-late", "complete by ann"),
    ("refused", 1, "paying-late", "complete session_expired after"),
    ("accepted", 1, "recovering", "recover by ann"),
    ("done", 2, "recovering", "recover: the newest session of its line was expired after"),
    ("began", 2, "recovering", "recovered: gold, step packages"),
    ("accepted", 2, "paying", "complete by ann"),
    ("done", 2, "paying", "complete after"),
    ("completed", 2, "paying", f"paid by {PAID}"),
]


def test_the_history_tells_what_happened_in_order_and_who_did_it(life: Life) -> None:
    assert [moment["event"] for moment in life.seen_by_operators["timeline"]] == [step[0] for step in STEPS]
    for moment, (_, session, task, detail) in zip(life.seen_by_operators["timeline"], STEPS, strict=True):
        assert moment["session_id"] == life.sessions[session]
        assert moment["task_id"] == (task and life.tasks[task])
        assert moment["detail"].startswith(detail)
    tasks = {task["id"]: task for task in life.seen_by_operators["tasks"]}
    for name in ("creating", "renewing", "paying-late", "recovering", "paying"):
        task = tasks[life.tasks[name]]
        assert (task["user_id"], task["attempts"]) == ("ann", 0)
        finished = life.line("task finished", task_id=task["id"])
        assert task["celery_task_id"] == finished["celery_task_id"]
        assert task["worker"]


def test_a_shopper_sees_the_same_but_for_what_is_the_operators(life: Life) -> None:
    def without_sweeps(moments: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [moment for moment in moments if moment["event"] != "marked"]

    timeline = life.history["timeline"]
    assert without_sweeps(timeline) == without_sweeps(life.seen_by_operators["timeline"])
    assert {task["worker"] or task["celery_task_id"] for task in life.history["tasks"]} == {None}


def test_make_session_tells_the_same_for_a_session_and_for_a_task(life: Life) -> None:
    page = life.told(life.sessions[0])
    for session in life.sessions:
        assert session in page
    assert life.told(life.sessions[2]).replace(" <\n", "\n") == page.replace(" <\n", "\n")
    happened = [line.split() for line in page.partition("What happened (UTC)\n")[2].splitlines()]
    assert [words[2] for words in happened] == [step[0] for step in STEPS]
    assert [words[3] for words in happened] == [f"S{step[1] + 1}" for step in STEPS]
    by_task = life.told(life.tasks["paying-late"])
    (pointed,) = [line for line in by_task.splitlines() if line.endswith(" <")]
    assert pointed.split()[1] == life.tasks["paying-late"]
    assert CART not in page
    assert max(map(len, page.splitlines())) <= 150


def test_make_session_says_what_it_cannot_find(life: Life) -> None:
    unknown = "0198aaaa-0000-7000-8000-000000000000"
    assert life.told(unknown).startswith(f"{unknown} is neither a session nor a task on record")
    assert life.told("x").startswith("Name one session or task")


@pytest.mark.parametrize("name", ["creating", "renewing", "paying-late", "recovering", "paying"])
def test_a_request_is_followed_from_the_api_through_the_worker(life: Life, name: str) -> None:
    accepted = life.line("task accepted", request_id=name)
    assert (accepted["process"], accepted["task_id"], accepted["user_id"]) == ("api", life.tasks[name], "ann")
    finished = life.line("task finished", request_id=name)
    assert (finished["process"], finished["task_id"]) == ("worker", life.tasks[name])
    stored = life.lines("database operation", celery_task_id=finished["celery_task_id"])
    assert [line["operation"] for line in stored] == ["store"]


def test_creation_is_logged_with_its_user(life: Life) -> None:
    line = life.line("task finished", kind="create")
    assert (line["user_id"], line["session_id"], line["state"]) == ("ann", life.sessions[0], "SUCCESS")


def test_navigation_is_logged_with_its_steps(life: Life) -> None:
    line = life.line("session navigated")
    assert (line["step_from"], line["step_to"], line["data_keys"]) == ("add", "packages", ["wish"])
    assert (line["session_id"], line["user_id"], line["request_id"]) == (life.sessions[0], "ann", "going")


def test_recovery_and_refusal_are_logged_with_reason_and_outcome(life: Life) -> None:
    line = life.line("task finished", kind="recover")
    assert line["reason"] == "the newest session of its line was expired"
    assert (line["addressed"], line["addressed_status"]) == (life.sessions[1], "expired")
    assert (line["state"], line["session_id"]) == ("SUCCESS", life.sessions[2])
    refused = life.line("task finished", task_id=life.tasks["paying-late"])
    assert (refused["state"], refused["refusal"]) == ("FAILURE", "session_expired")


def test_sweeps_and_cleanups_are_logged_with_their_rows(life: Life) -> None:
    swept = [line["rows"] for line in life.lines("maintenance done", task="maintenance.expire_sessions")]
    assert sum(swept) == 1
    asked = life.line("database operation", operation="ask for cleanup")
    assert (asked["request_id"], asked["cleanup_id"], asked["rows"]) == ("cleaning", life.tasks["cleaning"], 2)
    assert {line["task"] for line in life.lines("maintenance done", trigger="http")} == {
        "maintenance.expire_sessions",
        "maintenance.delete_sessions",
    }


def test_operations_on_the_database_are_logged_with_rows_and_time(life: Life) -> None:
    operations = {line["operation"]: line for line in life.lines("database operation")}
    assert operations.keys() >= {"acceptor", "store", "navigate", "newest of line", "session by id", "ask for cleanup"}
    assert all(line["ms"] >= 0 and line["rows"] is not None for line in operations.values())
    assert operations["navigate"]["request_id"] == "going"


def test_a_failure_is_logged_with_what_failed(life: Life) -> None:
    reading = life.line("database operation failed", request_id="reading-in-vain")
    assert (reading["process"], reading["operation"], reading["level"]) == ("api", "session by id", "warning")
    assert "UndefinedTable" in reading["error"]
    assert life.line("request failed", request_id="reading-in-vain")["exception"]
    assert "UndefinedTable" in life.lines("database operation failed", operation="acceptor")[0]["error"]


def test_no_line_holds_a_cart_a_token_or_a_payment(life: Life) -> None:
    for process in life.stack.processes:
        text = process.log.read_text()
        assert text
        for word in (CART, PAID, "Bearer", "eyJ"):
            assert word not in text
        assert all({"event", "level", "timestamp"} <= line.keys() for line in read(process.log)), process.name
