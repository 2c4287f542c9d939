"""A task whose execution always fails: alone with its fault, given up, visible, and taken up by hand."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.chaos.ailments import POISON
from tests.stack import COMMANDS, ROOT, Process, Stack, eventually

TRIES = 3


@contextmanager
def kept_up(stack: Stack, ailment: str) -> Iterator[None]:
    """A worker that chokes on `POISON`, and the process runner that puts another in its place."""
    closing = threading.Event()

    def run() -> None:
        while not closing.is_set():
            process = start_ill(stack, ailment)
            while process.running and not closing.wait(0.1):
                pass
            process.kill()

    runner = threading.Thread(target=run)
    runner.start()
    try:
        yield
    finally:
        closing.set()
        runner.join()


def start_ill(stack: Stack, ailment: str) -> Process:
    words = COMMANDS["worker"].format(n=ailment, folder=stack.folder).split()
    argv = [sys.executable, "-m", "tests.chaos.ailments", ailment, *words[1:]]
    process = Process(ailment, argv, stack.env, stack.folder / f"{ailment}.log")
    stack.processes.append(process)
    return process


def command(stack: Stack, module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """One of the operators' commands."""
    argv = [sys.executable, "-m", module, *arguments]
    return subprocess.run(argv, cwd=ROOT, env=stack.env, capture_output=True, text=True, check=False)


def accept(client: httpx.Client, path: str, **body: Any) -> str:
    """Accept without waiting."""
    answer = client.post(path, json=body, headers={"Prefer": ""})
    assert answer.status_code == 202, answer.text
    return str(answer.json()["task_id"])


@pytest.mark.parametrize("ailment", ["raises", "dies"])
def test_poison_spoils_nobody_elses_and_is_taken_up_by_hand(stack: Stack, ailment: str, tmp_path: Path) -> None:
    stack.env |= {"MAX_ATTEMPTS": str(TRIES), "REDELIVER_INTERVAL_SECONDS": "0.2"}
    for name in ("api", "maintenance", "beat"):
        stack.start(name)
    with stack.client("poisoner") as poisoner, stack.client("innocent") as innocent:
        poison = accept(poisoner, "/api/sessions", package=POISON)
        after = accept(poisoner, "/api/sessions", package="silver")
        others = [accept(innocent, "/api/sessions", package="gold") for _ in range(5)]

        def told(client: httpx.Client, task_id: str) -> Any:
            task = client.get(f"/api/tasks/{task_id}").json()
            return task["state"] != "PENDING" and task

        with kept_up(stack, ailment):  # it finds all of them waiting, in few messages
            assert all(eventually(lambda t=t: told(innocent, t))["state"] == "SUCCESS" for t in others)
            failed = eventually(lambda: told(poisoner, poison), "it is given up")
            assert (failed["state"], failed["error"]["code"], failed["error"]["next"]) == (
                "FAILURE",
                "gave_up",
                "retry",
            )
            assert eventually(lambda: told(poisoner, after), "the user's next is done")["state"] == "SUCCESS"
            metric = "checkout_sessions_given_up_tasks_24h 1.0"
            eventually(lambda: metric in httpx.get(f"{stack.url}/metrics").text, "the metric counts it")

        log = (stack.folder / f"{ailment}.log").read_text()
        assert "task given up" in log
        if ailment == "raises":  # Celery's own failure, which Flower shows in red
            assert "TasksFailedError" in log
        stack.start("worker")  # the cause is gone
        retried = command(stack, "workers.retry", poison)
        assert retried.returncode == 0, retried.stderr
        new = retried.stdout.split()[0]
        assert eventually(lambda: told(poisoner, new), "the retry is done")["state"] == "SUCCESS"
        assert told(poisoner, poison) == failed, "what was told stays told"
        assert command(stack, "workers.retry", poison).stdout.split()[0] == new, "a retry is one, however often"
        refused = command(stack, "workers.retry", after)
        assert (refused.returncode, refused.stdout) == (1, "")
        assert "was not given up" in refused.stderr
    assert command(stack, "workers.doctor").returncode == 0


def test_refused_payments_are_listed_until_a_session_holds_them(stack: Stack) -> None:
    stack.start("api")
    stack.start("worker")
    with stack.client("payer", Prefer="wait=20") as payer:
        first = payer.post("/api/sessions", json={"package": "gold"}).json()["session_id"]
        payer.post(f"/api/sessions/{first}/complete", json={"payment_reference": "paid"})
        payer.post(f"/api/sessions/{first}/complete", json={"payment_reference": "paid again"})
        listed = command(stack, "workers.refunds").stdout.splitlines()
        assert [line.split("\t")[1:5] for line in listed] == [["paid again", "already_completed", "payer", first]]
        second = payer.post("/api/sessions", json={"package": "gold"}).json()["session_id"]
        payer.post(f"/api/sessions/{second}/complete", json={"payment_reference": "paid again"})
        assert command(stack, "workers.refunds").stdout == ""
