"""docs/deploy.md held against the code: its commands are those of `make up`, and nothing it names is missing."""

import re
from pathlib import Path

import pytest
import yaml

from local.processes import MIGRATE, PROCESSES, Process
from tests.stack import ROOT
from tests.test_docs import headings

DEPLOY = (ROOT / "docs" / "deploy.md").read_text()
OURS = (MIGRATE, *PROCESSES)
ROWS = [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in DEPLOY.splitlines() if line[:2] == "| "]


@pytest.mark.parametrize("process", OURS, ids=lambda process: process.name)
def test_each_process_has_its_command(process: Process) -> None:
    (told,) = [cells[1] for cells in ROWS if cells[0] == process.name and cells[1].startswith("`python -m")]
    assert told.strip("`") == " ".join(process.command("python", Path("/state"), "0.0.0.0", 5555))


def test_each_process_that_goes_on_has_its_signals_and_the_probe_that_make_up_asks() -> None:
    told = {name: cells for cells in ROWS if len(cells) == 5 for name in cells[0].split(", ")}
    assert told.keys() - {"process"} == {process.name for process in PROCESSES}
    for process in PROCESSES:
        assert "SIGTERM" in told[process.name][2]
        assert f"`GET {process.probe}`" in told[process.name][1] or process.probe is None
        assert int(told[process.name][3].removesuffix(" s")) > process.stop_seconds


def test_the_container_of_kubernetes_is_yaml_and_asks_the_paths() -> None:
    (block,) = re.findall(r"^```yaml\n(.*?)^```$", DEPLOY, re.MULTILINE | re.DOTALL)
    container = yaml.safe_load(block)
    assert container["command"] == ["python", "-m", "api"]
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert container["livenessProbe"]["httpGet"]["path"] == "/healthz"


def test_each_link_leads_somewhere() -> None:
    for link in re.findall(r"\]\(([^)]+)\)", DEPLOY):
        path, _, anchor = link.partition("#")
        assert (ROOT / "docs" / path).exists()
        assert not anchor or anchor in headings(ROOT / "docs" / path)
