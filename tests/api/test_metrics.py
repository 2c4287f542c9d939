"""/metrics against what was asked, and against what operators' rules and dashboards name."""

import json
import re
from collections.abc import Callable

import httpx
import pytest
import yaml

from tests.api.asking import begin
from tests.api.conftest import Enter, Service
from tests.monitoring.conftest import expressions
from tests.stack import ROOT, eventually

Samples = dict[str, float]


def samples(client: httpx.Client) -> Samples:
    """Each line of /metrics, by name and labels."""
    response = client.get("/metrics")
    assert response.status_code == 200
    assert response.headers["Content-Type"].startswith("text/plain; version=")
    found = re.findall(r"^(\w+(?:\{.*\})?) (\S+)$", response.text, re.MULTILINE)
    return {name: float(value) for name, value in found}


def grown(before: Samples, after: Samples, name: str) -> float:
    """By how much it has grown."""
    return after.get(f"checkout_sessions_{name}", 0.0) - before.get(f"checkout_sessions_{name}", 0.0)


@pytest.fixture(scope="module")
def measured(services: Callable[..., Service]) -> Service:
    """A whole service that only these tests ask."""
    return services("measured", "worker", "maintenance", "beat", "api")


def test_it_says_what_is_there(measured: Service, enter: Enter) -> None:
    client = enter(url=measured.stack.url, Prefer="wait=20")
    begin(client)

    def look() -> Samples | None:
        now = samples(client)
        there = (now["checkout_sessions_beats"], now['checkout_sessions_workers{queue="sessions"}'])
        counted = (now.get("checkout_sessions_active"), now.get("checkout_sessions_batch_tasks_sum"))
        return now if there == counted == (1, 1) else None

    now = eventually(look, "all are heard, and the figures counted")
    assert now['checkout_sessions_workers{queue="maintenance"}'] == 1
    assert (now["checkout_sessions_postgres_up"], now["checkout_sessions_redis_up"]) == (1, 1)
    assert now['checkout_sessions_pool_in_use{pool="reader"}'] == 0
    assert now['checkout_sessions_pool_size{pool="reader"}'] == 8
    assert now["checkout_sessions_pending_tasks"] == now["checkout_sessions_oldest_pending_task_seconds"] == 0


def test_what_is_finished_is_counted_once_whoever_executed_it(measured: Service, enter: Enter) -> None:
    client = enter(url=measured.stack.url, Prefer="wait=20")
    before = samples(client)
    session = begin(client)["id"]
    for reference in ("m-1", "m-2"):
        client.post(f"/api/sessions/{session}/complete", json={"payment_reference": f"{session}-{reference}"})

    def look() -> Samples | None:
        now = samples(client)
        return now if grown(before, now, "batch_tasks_sum") >= 3 else None

    now = eventually(look, "counted, once its transaction is surely committed")
    for kind, outcome in (("create", "success"), ("complete", "success"), ("complete", "already_completed")):
        assert grown(before, now, f'tasks_finished_total{{kind="{kind}",outcome="{outcome}"}}') == 1
    for measure in ("accept_seconds", "answer_seconds", "accept_batch_tasks", "batch_tasks"):
        assert grown(before, now, f"{measure}_count") == 3
        assert grown(before, now, f'{measure}_bucket{{le="+Inf"}}') == 3
    assert grown(before, now, 'batch_tasks_bucket{le="1.0"}') == 3
    assert grown(before, now, 'task_seconds_count{kind="complete"}') == 2
    assert grown(before, now, 'task_seconds_bucket{kind="complete",le="10.0"}') == 2
    assert grown(before, now, "batch_tasks_sum") == 3
    assert 0 < grown(before, now, "answer_seconds_sum") < 60


def names(text: str) -> set[str]:
    """Of our metrics, in an expression."""
    return set(re.findall(r"\bcheckout_sessions_\w+", text))


def test_what_alerts_and_dashboards_name_is_there(measured: Service, enter: Enter) -> None:
    rules = yaml.safe_load((ROOT / "monitoring" / "alerts.yml").read_text())
    named = {name for group in rules["groups"] for rule in group["rules"] for name in names(rule["expr"])}
    for dashboard in (ROOT / "monitoring" / "grafana").glob("*.json"):
        named |= {name for expression in expressions(json.loads(dashboard.read_text())) for name in names(expression)}
    assert len(named) > 20
    url = measured.stack.url
    enter("operator", "service_role", url=url).post("/api/maintenance/cleanup")
    client = enter(url=url, Prefer="wait=20")
    session = begin(client)["id"]
    measured.age(session, days=2)
    client.post(f"/api/sessions/{session}/recover")
    client.get("/api/tasks/none")  # a problem
    measured.sql.execute("""INSERT INTO maintenance_runs (id, task, trigger, began_at, finished_at)
        VALUES (gen_random_uuid(), 'maintenance.check_invariants', 'beat', now(), now())""")

    def look() -> bool:
        there = {re.sub(r"\{.*", "", name) for name in samples(client)}
        assert named - there == set()
        return True

    eventually(look, "all are there")
