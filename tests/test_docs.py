"""README says what is there, and names nothing that is not."""

import re

from api.problems import KINDS
from local.settings import LocalSettings
from tests.stack import ROOT

README = (ROOT / "README.md").read_text()
QUOTED = set(re.findall(r"`([^`\n]+)`", README))


def test_each_setting_is_named() -> None:
    assert {name for name in LocalSettings.names() if f"`{name}`" not in README} == set()


def test_no_setting_is_made_up() -> None:
    named = {word for word in QUOTED if re.fullmatch(r"[A-Z]+(_[A-Z]+)*", word)}
    assert named - LocalSettings.names() - {"PENDING", "FAILURE", "SUCCESS"} == set()


def test_each_problem_code_is_named() -> None:
    assert {str(code) for code in KINDS} - QUOTED == set()


def test_each_make_target_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"make ([a-z-]+)", README)) - targets - {"a"} == set()


def test_each_file_linked_exists() -> None:
    assert [path for path in re.findall(r"\]\(([^)]+)\)", README) if not (ROOT / path).exists()] == []
