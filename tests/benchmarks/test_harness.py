"""That the harness works: everything runs, and every figure has its place. How fast anything is, it does not say."""

import json
import shutil
from pathlib import Path

import psycopg
import pytest

from benchmarks.compare import compare
from benchmarks.report import report
from benchmarks.servers import libpq, servers
from benchmarks.systems import CHOICES, Choice, running
from tests.benchmarks.shopping import create_at_once

pytestmark = [
    pytest.mark.acceptance,
    pytest.mark.skipif(not shutil.which("wrk"), reason="wrk is not installed (apt-get install wrk)"),
]


def test_all_systems_are_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    loads, said = ["direct", "textbook", "ours"], []
    result = compare(loads, [4], rounds=2, seconds=1, choices=CHOICES, say=said.append)
    report(result, str(tmp_path))

    assert set(result.measured) == {(load, 4) for load in loads}
    assert all(len(found) == 2 and all(one.sessions for one in found) for found in result.measured.values())
    assert len(said) == 6
    assert result.settings["fsync"] == result.settings["synchronous_commit"] == "on"
    table = (tmp_path / "compare.md").read_text()
    assert table in capsys.readouterr().out
    assert "| 4 | ours / direct |" in table
    assert {entry["load"] for entry in json.loads((tmp_path / "compare.json").read_text())["measured"]} == set(loads)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["direct", "textbook"])
def test_a_baseline_keeps_the_rules_of_a_create(name: str, tmp_path: Path) -> None:
    """Each answers with the session, of which the last alone stays active, and what is overdue becomes expired."""
    with servers(tmp_path / "servers") as both:
        database_url = both.database("rules", users=1)
        with psycopg.connect(libpq(database_url), autocommit=True) as connection:
            connection.execute("UPDATE checkout_sessions SET created_at = now() - interval '2 d', expires_at = now()")
            with running(name, Choice(connections=4), both, database_url, tmp_path) as system:
                answers = create_at_once(system.ports[0], number=1, clients=8)
            rows = connection.execute("SELECT id::text, status FROM checkout_sessions ORDER BY status").fetchall()

    assert [status for _, status in rows] == ["active", "expired"] + ["invalidated"] * 7
    assert {answer["id"] for answer in answers} == {row[0] for row in rows if row[1] != "expired"}
    assert all(answer["valid"] and answer["status"] == "active" for answer in answers)
