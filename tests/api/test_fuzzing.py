"""Schemathesis asks the running service whatever its OpenAPI allows and forbids, and holds each answer against it."""

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.api.conftest import Service
from tests.api.contract import new_user
from tests.stack import ROOT, headers

REQUESTS = 1_000
CONFIGURATION = """
[[operations]]
include-path-regex = "cleanup"
headers = {{ Authorization = "{operator}" }}
"""


def test_the_service_answers_as_its_openapi_says(service: Service, tmp_path: Path) -> None:
    user, operator = (headers(*who)["Authorization"] for who in ((new_user(),), ("operator", "service_role")))
    (tmp_path / "schemathesis.toml").write_text(CONFIGURATION.format(operator=operator))
    command = [
        sys.executable, "-m", "schemathesis.cli", "run", f"{service.stack.url}/openapi.json",
        "--header", f"Authorization: {user}", "--checks", "all", "--max-examples", "12", "--seed", "1", "--no-shrink",
        "--continue-on-failure", "--request-timeout", "40",
    ]  # fmt: skip
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "SCHEMATHESIS_HOOKS": "tests.api.fuzzing",
        "COLUMNS": "200",
    }
    run = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=170)
    assert run.returncode == 0, run.stdout + run.stderr
    cases = re.search(r"(\d+) generated", run.stdout)
    assert cases is not None
    assert int(cases[1]) >= REQUESTS, run.stdout
    for process in service.stack.processes:
        if process.name == "api":
            assert "request failed" not in process.log.read_text()
