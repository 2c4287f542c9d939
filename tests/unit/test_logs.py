"""Log lines as a process writes them: JSON into a pipe, colour on a terminal, no values of a shopper in either."""

import json
import os
import pty
import subprocess
import sys
from typing import Any

from tests.stack import ROOT

PREAMBLE = """
import logging, sys, warnings
import psycopg, structlog
from sqlalchemy.exc import DataError
from db import logs
logs.configure()
"""


def lines(program: str) -> list[dict[str, Any]]:
    """What the program logs; nothing else may be written."""
    done = subprocess.run(
        [sys.executable, "-c", PREAMBLE + program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == ""
    return [json.loads(line) for line in done.stderr.splitlines()]


def test_each_thing_has_its_line_with_the_ids_of_its_context() -> None:
    first, second = lines("""
logs.bind(request_id="r-1")
logs.each("task accepted", ({"task_id": n} for n in (1, 2)))
""")
    assert first | {"timestamp": ""} == {
        "event": "task accepted", "level": "info", "timestamp": "", "request_id": "r-1", "task_id": 1
    }  # fmt: skip
    assert second["task_id"] == 2


def test_lines_of_two_processes_into_one_pipe_are_whole() -> None:
    """More than it takes at once."""
    found = lines("""
import os
child = os.fork()
for _ in range(20):
    logs.each("task finished", ({"task_id": n, "reason": "x" * 300} for n in range(200)))
if child:
    os.waitpid(child, 0)
""")
    assert len(found) == 2 * 20 * 200


def test_an_operation_tells_its_rows_and_time_or_its_failure_without_values() -> None:
    program = """
with logs.operation("read", session_id="s-1") as done:
    done.rows = 3
for error in (
    psycopg.errors.CheckViolation("it failed\\nDETAIL: Failing row contains (secret)."),
    DataError("INSERT", {"data": "secret"}, psycopg.DataError("bad\\nsecret"), hide_parameters=True),
    TimeoutError(),
    ValueError("secret"),
):
    try:
        with logs.operation("store"):
            raise error
    except Exception:
        pass
"""
    read, *failed, refused = lines(program)
    assert (read["event"], read["operation"], read["rows"], read["session_id"]) == (
        "database operation", "read", 3, "s-1"
    )  # fmt: skip
    assert read["ms"] >= 0
    assert [line["event"] for line in failed] == ["database operation failed"] * 3
    assert [line["level"] for line in failed] == ["warning"] * 3
    assert "CheckViolation('it failed" in failed[0]["error"]
    assert "secret" not in json.dumps([*failed, refused])
    assert refused["event"] == "database operation"  # what the rules refuse is no failure of the database


def test_a_traceback_is_one_line_without_values() -> None:
    (line,) = lines("""
cart = "secret"
try:
    raise psycopg.errors.CheckViolation("it failed\\nDETAIL: Failing row contains (secret).")
except Exception:
    structlog.get_logger("x").exception("request failed")
""")
    assert line["exception"][0]["exc_value"] == "it failed"
    assert "secret" not in json.dumps(line)


def test_libraries_and_warnings_speak_in_the_same_shape() -> None:
    said = lines("""
logging.getLogger("celery.beat").error("no connection")
warnings.warn("old")
""")
    assert [(line["logger"], line["level"]) for line in said] == [("celery.beat", "error"), ("py.warnings", "warning")]
    assert all(line.keys() >= {"event", "timestamp"} for line in said)


def test_a_command_that_speaks_of_warnings_only_is_silent_else() -> None:
    assert lines("logs.configure('WARNING'); logs.each('task finished', [{}])") == []


def test_on_a_terminal_lines_are_read_by_people() -> None:
    ours, theirs = pty.openpty()
    program = PREAMBLE + "logs.each('task finished', [{'task_id': 't-1'}])"
    environment = {**os.environ, "TERM": "xterm-256color"}
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, stderr=theirs, env=environment, check=True)
    os.close(theirs)
    said = os.read(ours, 10_000).decode()
    os.close(ours)
    assert "task finished" in said
    assert "\x1b[" in said
    assert not said.startswith("{")
