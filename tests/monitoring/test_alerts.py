"""The alert rules, by promtool: what raises each, and that nothing is raised by an hour in which all is well."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.monitoring.conftest import MONITORING, rules

# A series and its values, in promtool's notation (a step is ten seconds), of a service that is well and busy.
API = 'instance="api-1",job="checkout-sessions"'
HEALTHY = {
    f"up{{{API}}}": "1x360",
    "checkout_sessions_postgres_up": "1x360",
    "checkout_sessions_redis_up": "1x360",
    "checkout_sessions_redis_memory_bytes": "2000000+1000x360",
    "checkout_sessions_redis_memory_limit_bytes": "0x360",
    'checkout_sessions_pool_in_use{pool="reader"}': "0 3 8 1 0 2x355",  # a burst takes all of them for a moment
    'checkout_sessions_pool_size{pool="reader"}': "8x360",
    "checkout_sessions_postgres_connections": "40x360",
    "checkout_sessions_postgres_connections_limit": "100x360",
    'checkout_sessions_workers{queue="sessions"}': "2x360",
    'checkout_sessions_workers{queue="maintenance"}': "1x100 0 1x259",  # started again, by a deploy
    'checkout_sessions_heartbeat_age_seconds{role="worker",queue="sessions",name="sessions@a"}': "1x360",
    'checkout_sessions_heartbeat_age_seconds{role="beat",queue="-",name="beat@a:1"}': "1x360",
    "checkout_sessions_beats": "1x100 2x2 1x257",  # two for a moment, in a deploy
    "checkout_sessions_oldest_pending_task_seconds": "0.02x360",
    "checkout_sessions_pending_tasks": "10+4x100 410-4x100 10x158",
    'checkout_sessions_answer_seconds_bucket{le="0.5"}': "0+100x360",
    'checkout_sessions_answer_seconds_bucket{le="1.0"}': "0+100x360",
    'checkout_sessions_answer_seconds_bucket{le="2.5"}': "0+100x360",
    'checkout_sessions_answer_seconds_bucket{le="+Inf"}': "0+100x360",
    'checkout_sessions_problems_total{code="session_expired"}': "0+50x360",  # refusals are no faults
    'checkout_sessions_problems_total{code="internal_error"}': "0x360",
    "checkout_sessions_given_up_tasks_24h": "0x360",
    "checkout_sessions_doorbells_lost_total": "3x360",
    'checkout_sessions_maintenance_failing{task="maintenance.expire_sessions"}': "0x360",
    'checkout_sessions_maintenance_failing{task="maintenance.check_invariants"}': "0x360",
    'checkout_sessions_maintenance_since_success_seconds{task="maintenance.expire_sessions"}': "30x360",
    'checkout_sessions_maintenance_interval_seconds{task="maintenance.expire_sessions"}': "60x360",
    "checkout_sessions_oldest_overdue_session_seconds": "60x360",
    "checkout_sessions_invariant_breaches": "0x360",
}

# An alert, what differs from health for it, and the other alerts that come with it.
FAULTS: dict[str, tuple[dict[str, str], set[str]]] = {
    "ApiDown": ({f"up{{{API}}}": "0x360"}, set()),
    "PostgresDown": ({"checkout_sessions_postgres_up": "0x360"}, set()),
    "RedisDown": ({"checkout_sessions_redis_up": "0x360"}, set()),
    "RedisFull": (
        {
            "checkout_sessions_redis_memory_limit_bytes": "2100000x360",
            # Nobody can be heard then, which is not their fault.
            'checkout_sessions_heartbeat_age_seconds{role="worker",queue="sessions",name="sessions@a"}': "0+10x360",
        },
        set(),
    ),
    "PoolExhausted": ({'checkout_sessions_pool_in_use{pool="reader"}': "8x360"}, set()),
    "PostgresConnectionsHigh": ({"checkout_sessions_postgres_connections": "95x360"}, set()),
    "WorkersMissing": ({'checkout_sessions_workers{queue="sessions"}': "0x360"}, set()),
    "WorkerSilent": (
        {'checkout_sessions_heartbeat_age_seconds{role="worker",queue="sessions",name="sessions@a"}': "0+10x360"},
        set(),
    ),
    "BeatMissing": ({"checkout_sessions_beats": "0x360"}, set()),
    "BeatDoubled": ({"checkout_sessions_beats": "2x360"}, set()),
    "TasksWaiting": ({"checkout_sessions_oldest_pending_task_seconds": "0+10x360"}, set()),
    "BacklogGrowing": ({"checkout_sessions_pending_tasks": "0+100x360"}, set()),
    "AnswersSlow": (
        {
            'checkout_sessions_answer_seconds_bucket{le="0.5"}': "0+90x360",
            'checkout_sessions_answer_seconds_bucket{le="1.0"}': "0+90x360",
        },
        set(),
    ),
    "RequestsFailing": ({'checkout_sessions_problems_total{code="internal_error"}': "0+5x360"}, set()),
    "TasksGivenUp": ({"checkout_sessions_given_up_tasks_24h": "1x360"}, set()),
    "DoorbellsLost": ({"checkout_sessions_doorbells_lost_total": "0+5x360"}, set()),
    "CleanupFailing": (
        {'checkout_sessions_maintenance_failing{task="maintenance.expire_sessions"}': "1x360"},
        set(),
    ),
    "MaintenanceLate": (
        {'checkout_sessions_maintenance_since_success_seconds{task="maintenance.expire_sessions"}': "0+10x360"},
        set(),
    ),
    "ExpiryLate": ({"checkout_sessions_oldest_overdue_session_seconds": "0+10x360"}, set()),
    "InvariantsBroken": ({"checkout_sessions_invariant_breaches": "1x360"}, set()),
}


def judged(promtool: str, folder: Path, series: dict[str, str], expression: str, at: str, firing: set[str]) -> None:
    """Have promtool evaluate the rules over the series, and compare the alerts."""
    test: dict[str, Any] = {
        "rule_files": [str(MONITORING / "alerts.yml")],
        "evaluation_interval": "10s",
        "tests": [
            {
                "interval": "10s",
                "input_series": [{"series": name, "values": values} for name, values in series.items()],
                "promql_expr_test": [
                    {
                        "expr": expression,
                        "eval_time": at,
                        "exp_samples": [{"labels": f'{{alertname="{name}"}}', "value": 1} for name in sorted(firing)],
                    }
                ],
            }
        ],
    }
    file = folder / "test.yml"
    file.write_text(yaml.safe_dump(test, width=10_000))
    done = subprocess.run([promtool, "test", "rules", str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_files_are_sound(promtool: str) -> None:
    for command in (["check", "rules", "alerts.yml"], ["check", "config", "prometheus.yml"]):
        done = subprocess.run([promtool, *command], cwd=MONITORING, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_an_hour_in_which_all_is_well_raises_none(promtool: str, tmp_path: Path) -> None:
    judged(
        promtool,
        tmp_path,
        HEALTHY,
        'count by (alertname) (last_over_time(ALERTS{alertstate="firing"}[1h]))',
        "1h",
        set(),
    )


@pytest.mark.parametrize("alert", FAULTS)
def test_each_alert_has_a_fault_that_raises_it_and_no_other(promtool: str, tmp_path: Path, alert: str) -> None:
    differs, others = FAULTS[alert]
    assert set(differs) <= set(HEALTHY)
    judged(
        promtool,
        tmp_path,
        HEALTHY | differs,
        'count by (alertname) (ALERTS{alertstate="firing"})',
        "10m",
        {alert} | others,
    )


def test_each_alert_is_tested_and_says_what_to_do() -> None:
    assert [rule["alert"] for rule in rules()] == list(FAULTS)
    for rule in rules():
        anchor = re.sub(r"(?<!^)(?=[A-Z])", "-", rule["alert"]).lower()
        assert rule["annotations"].keys() == {"summary", "meaning", "action", "runbook"}
        assert rule["annotations"]["runbook"] == f"docs/runbook.md#{anchor}"
        assert rule["labels"]["severity"] in {"page", "ticket"}
