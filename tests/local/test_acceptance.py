"""`make up` as it is: the whole service on this machine, used by the lines that it prints."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.local.running import Running
from tests.stack import ROOT, eventually

pytestmark = pytest.mark.acceptance


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    with Running(tmp_path / "state", "-m", "local.up") as running:
        yield running.start()


def paste(running: Running) -> list[dict[str, Any]]:
    """What the printed lines answer: the task, the session, the task."""
    lines = [line for line in running.said.splitlines() if line.startswith(("TOKEN=", "SESSION=", "curl "))]
    script = "\n".join(lines)
    done = subprocess.run(["bash", "-euc", script], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return [json.loads(answer) for answer in (done.stderr, *done.stdout.splitlines())]


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
def test_the_printed_lines_work_over_and_over_and_after_a_crash_of_everything(running: Running) -> None:
    created, session, completed = paste(running)
    assert created["state"] == completed["state"] == "SUCCESS"
    assert session["status"] == "active"
    assert completed["result"]["status"] == "completed"
    assert completed["session_id"] == session["id"] == created["session_id"]

    for words in ("bin/postgres", "redis-server", "-m api", "-Q sessions", "-Q maintenance", "beat_schedule"):
        running.child(words).kill()
    eventually(lambda: paste(running)[1]["status"] == "active", "it serves again")


def test_operators_find_their_tools(running: Running) -> None:
    def workers() -> dict[str, bool]:
        found = httpx.get(f"http://127.0.0.1:{running.flower_port}/workers", params={"json": "1"}).json()
        return {worker["hostname"].partition("@")[0]: worker["status"] for worker in found["data"]}

    eventually(lambda: workers() == {"sessions": True, "maintenance": True}, "Flower shows both workers")
    assert httpx.get(f"http://127.0.0.1:{running.api_port}/docs").status_code == 200
    cleanup = subprocess.run(
        [sys.executable, "-m", "local.run", "python", "-m", "workers.cleanup"],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "STATE_DIR": str(running.folder)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert cleanup.stdout == "expired 0 sessions, deleted 0 sessions\n"
