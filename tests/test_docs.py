"""README says what is there, and names nothing that is not."""

import re
from pathlib import Path

from api.problems import KINDS
from local.settings import LocalSettings
from tests.api.contract import openapi
from tests.stack import ROOT

README = "\n".join((ROOT / name).read_text() for name in ("README.md", "docs/limits.md"))
QUOTED = set(re.findall(r"`([^`\n]+)`", README))


def rows(pattern: str) -> list[list[str]]:
    """The cells of the table rows that begin like this."""
    lines = [line for line in README.splitlines() if re.match(rf"\| {pattern}", line)]
    return [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in lines]


def headings(page: Path) -> set[str]:
    """The anchors of a page."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^a-z0-9 -]", "", title.lower()).replace(" ", "-") for title in titles}


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
    """And the heading in it, where one is named."""
    links = [link.partition("#") for link in re.findall(r"\]\(([^)]+)\)", README)]
    assert [path for path, _, _ in links if not (ROOT / path).is_file() and not (ROOT / path).is_dir()] == []
    assert [link for link in links if link[2] and link[2] not in _headings(ROOT / link[0])] == []


def _headings(page: Path) -> set[str]:
    titles = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


def test_each_default_is_told() -> None:
    """A row names one setting or two, and as many defaults."""
    told: dict[str, str] = {}
    for names, defaults, *_ in rows("`[A-Z_]+`"):
        told |= dict(zip(re.findall(r"`(\w+)`", names), defaults.split(", "), strict=False))
    for name, field in LocalSettings.model_fields.items():
        if isinstance(field.default, int | float | str) and not isinstance(field.default, bool):
            assert told[name.upper()] == f"`{field.default}`"
        elif field.default is None:
            assert not told.get(name.upper(), "").startswith("`"), name


def test_each_path_is_named_with_its_method_and_no_other() -> None:
    named = {word.rpartition(" ")[2] for word in QUOTED if re.fullmatch(r"([A-Z]+ )?/[a-z][^ ]*", word)}
    assert set(openapi()["paths"]) == named - {"/docs", "/openapi.json", "/ops"}
    for word in QUOTED:
        if match := re.fullmatch(r"([A-Z]+) (/[a-z][^ ]*)", word):
            assert match[2] == "/docs" or match[1].lower() in openapi()["paths"][match[2]], word


def test_each_problem_code_stands_beside_its_status() -> None:
    told = {code: cells[0] for cells in rows(r"\d{3}[, ]") for code in re.findall(r"`(\w+)`", cells[1])}
    assert {code for code, kind in KINDS.items() if str(kind.status) not in told[code].split(", ")} == set()


def test_each_file_named_exists() -> None:
    named = {word for word in QUOTED if re.fullmatch(r"[\w./-]+\.(py|md|yml|toml|js|sql)", word)}
    assert {name for name in named if not (ROOT / name).exists()} == set()
