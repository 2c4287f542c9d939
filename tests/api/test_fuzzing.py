"""Schemathesis asks the running service whatever its OpenAPI allows and forbids, and holds each answer against it."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.api.conftest import Service
from tests.api.contract import new_user
from tests.stack import ROOT, headers

# Seeds, examples of each operation and phase, requests that come of all at least, seconds for each seed.
SOME = ((1,), 12, 1_000, 170)
MANY = ((1, 2), 400, 10_000, 1_200)
CONFIGURATION = """
[[operations]]
include-path-regex = "cleanup|ops"
headers = {{ Authorization = "{operator}" }}
"""


@pytest.mark.parametrize(
    ("seeds", "examples", "requests", "seconds"),
    [
        pytest.param(*SOME, id="some"),
        pytest.param(*MANY, id="many", marks=[pytest.mark.slow, pytest.mark.timeout(2_500)]),
    ],
)
def test_the_service_answers_as_its_openapi_says(
    service: Service, tmp_path: Path, seeds: tuple[int, ...], examples: int, requests: int, seconds: int
) -> None:
    user, operator = (headers(*who)["Authorization"] for who in ((new_user(),), ("operator", "service_role")))
    (tmp_path / "schemathesis.toml").write_text(CONFIGURATION.format(operator=operator))
    command = [
        sys.executable, "-m", "schemathesis.cli", "run", f"{service.stack.url}/openapi.json",
        "--header", f"Authorization: {user}", "--checks", "all", "--max-examples", str(examples), "--no-shrink",
        "--continue-on-failure", "--request-timeout", "40",
    ]  # fmt: skip
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "SCHEMATHESIS_HOOKS": "tests.api.fuzzing",
        "COLUMNS": "200",
    }
    generated = 0
    for seed in seeds:
        run = subprocess.run(
            [*command, "--seed", str(seed)],
            cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=seconds,
        )  # fmt: skip
        assert run.returncode == 0, run.stdout + run.stderr
        cases = re.search(r"(\d+) generated", run.stdout)
        assert cases is not None
        generated += int(cases[1])
    assert generated >= requests
    for process in service.stack.processes:
        if process.name == "api":
            assert "request failed" not in process.log.read_text()
