"""Beat's timetable: what, how often, on which queue, and that ticks never pile up."""

import json
import re
import subprocess
import sys
from typing import Any

from tests.stack import ROOT

READ = """
import json, sys
from beat_schedule import app
from workers import tasks  # registers them
told = {}
for name, entry in app.conf.beat_schedule.items():
    queue = app.amqp.router.route(entry["options"], entry["task"])["queue"].name
    told[name] = [entry["task"], entry["schedule"].total_seconds(), entry["options"]["expires"], queue,
                  entry["task"] in app.tasks]
json.dump(told, sys.stdout)
"""
DEFAULTS = {
    "maintenance.expire_sessions": 60,
    "maintenance.delete_sessions": 3600,
    "maintenance.redeliver_tasks": 2,
    "maintenance.purge_records": 86400,
    "maintenance.check_invariants": 900,
}


def timetable(**settings: str) -> dict[str, Any]:
    """Name -> task, period, expiry, queue, whether a worker knows it; in a process of its own, as beat reads it."""
    env = {"DATABASE_URL": "postgresql://nowhere/nothing", "REDIS_URL": "redis://nowhere/0", **settings}
    read = subprocess.run([sys.executable, "-c", READ], cwd=ROOT, env=env, check=True, capture_output=True, timeout=60)
    return json.loads(read.stdout)


def test_every_entry_is_a_known_task_on_the_maintenance_queue_that_expires_with_its_period() -> None:
    assert timetable() == {
        name: [name, period, period, "maintenance", True] for name, period in DEFAULTS.items()
    }  # fmt: skip


def test_the_settings_change_the_periods() -> None:
    changed = timetable(
        EXPIRE_INTERVAL_SECONDS="0.5", DELETE_INTERVAL_SECONDS="7", REDELIVER_INTERVAL_SECONDS="1",
        PURGE_INTERVAL_SECONDS="100", DOCTOR_INTERVAL_SECONDS="9",
    )  # fmt: skip
    assert [changed[name][1:3] for name in DEFAULTS] == [[0.5, 0.5], [7, 7], [1, 1], [100, 100], [9, 9]]


def test_the_table_that_people_read_names_every_entry_and_its_period() -> None:
    seconds = {"s": 1, "min": 60, "h": 3600}
    rows = re.findall(r"^\| (maintenance\.\w+) *\| (\d+) (\w+) *\|", (ROOT / "beat_schedule.py").read_text(), re.M)
    assert {name: int(number) * seconds[unit] for name, number, unit in rows} == DEFAULTS
