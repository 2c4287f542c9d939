"""SECURITY.md names tests that exist; the lock file has hashes; the security rules of the linter are on."""

import re
import tomllib

import pytest

from tests.stack import ROOT

NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", (ROOT / "SECURITY.md").read_text())))


@pytest.mark.parametrize(("file", "test"), NAMED)
def test_each_test_that_is_named_exists(file: str, test: str) -> None:
    assert re.search(rf"^(async )?def {test}\(", (ROOT / file).read_text(), re.MULTILINE)


def test_each_threat_names_one() -> None:
    rows = [line for line in (ROOT / "SECURITY.md").read_text().splitlines() if line.startswith("| ")]
    assert len(rows) > 20
    assert [row for row in rows[1:] if "`tests/" not in row] == []


def test_every_package_is_locked_with_hashes() -> None:
    packages = tomllib.loads((ROOT / "uv.lock").read_text())["package"]
    files = [file for one in packages for file in (*one.get("wheels", ()), one.get("sdist")) if file]
    assert len(files) > len(packages) > 50
    assert [file["url"] for file in files if not file.get("hash", "").startswith("sha256:")] == []
    assert [one["name"] for one in packages if not (one.get("wheels") or one.get("sdist"))] == ["checkout-sessions"]


def test_the_rules_of_bandit_are_on_for_what_runs() -> None:
    lint = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["ruff"]["lint"]
    assert "S" in lint["select"]
    assert [rule for rule in lint["ignore"] if rule.startswith("S")] == ["S101"]  # assert, for types
    spared = {path for path, rules in lint["per-file-ignores"].items() if any(rule.startswith("S") for rule in rules)}
    assert not [path for path in spared if path.startswith(("api", "workers"))]
