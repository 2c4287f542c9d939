"""A cleanup by hand: a task like the others, for the service role."""

from typing import Any

import httpx
import pytest
from uuid_utils.compat import uuid7

from tests.api.asking import begin, finished
from tests.api.conftest import Enter, Service
from tests.api.contract import ACCEPTED, TASK, assert_problem


@pytest.fixture
def due(shopper: httpx.Client, service: Service) -> dict[str, str]:
    """One session that is to be marked, one that is to be deleted, and a completed one as old as that."""
    completed = begin(shopper)["id"]
    paid = {"payment_reference": completed}
    shopper.post(f"/api/sessions/{completed}/complete", json=paid, headers={"Prefer": "wait=20"})
    old, overdue = begin(shopper)["id"], begin(shopper)["id"]
    service.age(completed, 8)
    service.age(old, 8)
    service.age(overdue, 2)
    return {"completed": completed, "old": old, "overdue": overdue}


def assert_cleaned(shopper: httpx.Client, service: Service, due: dict[str, str]) -> None:
    """What was due is done, and nothing else."""
    stored = "SELECT status FROM checkout_sessions WHERE id = %s"
    assert service.one(stored, due["overdue"])["status"] == "expired"
    assert shopper.get(f"/api/sessions/{due['overdue']}").json()["status"] == "expired"
    assert_problem(shopper.get(f"/api/sessions/{due['old']}"), "session_not_found")
    assert shopper.get(f"/api/sessions/{due['completed']}").json()["status"] == "completed"


def test_a_cleanup_is_accepted_polled_and_done(
    operator: httpx.Client, shopper: httpx.Client, service: Service, due: dict[str, str]
) -> None:
    accepted = operator.post("/api/maintenance/cleanup")
    assert accepted.status_code == 202
    assert accepted.json().keys() == ACCEPTED
    assert accepted.headers["Location"] == f"/api/tasks/{accepted.json()['task_id']}"
    assert (accepted.json()["session_id"], accepted.json()["state"]) == (None, "PENDING")
    task = finished(operator, accepted)
    assert task.keys() == TASK
    assert (task["kind"], task["state"], task["session_id"], task["error"]) == ("cleanup", "SUCCESS", None, None)
    assert task["result"] == {"expired": 1, "deleted": 1}
    assert task["accepted_at"] <= task["finished_at"]
    assert_cleaned(shopper, service, due)
    runs = service.sql.execute("SELECT * FROM maintenance_runs WHERE cleanup_id = %s", [task["id"]]).fetchall()
    assert {(run["task"], run["trigger"], run["rows"]) for run in runs} == {
        ("maintenance.expire_sessions", "http", 1),
        ("maintenance.delete_sessions", "http", 1),
    }


def test_a_cleanup_can_be_waited_for(operator: httpx.Client) -> None:
    done = operator.post("/api/maintenance/cleanup", headers={"Prefer": "wait=20"})
    assert done.status_code == 200
    assert done.headers["Preference-Applied"] == "wait=20"
    assert (done.json()["state"], done.json()["result"]) == ("SUCCESS", {"expired": 0, "deleted": 0})
    assert operator.get(f"{done.headers['Location']}?wait=20").json() == done.json()


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_the_old_path_cleans_up_as_well(
    operator: httpx.Client, shopper: httpx.Client, service: Service, due: dict[str, str], method: str
) -> None:
    done = operator.request(method, "/api/cleanup-expired-sessions")
    assert done.status_code == 200
    assert done.json() == {"expired": 1, "deleted": 1}
    assert_cleaned(shopper, service, due)


def test_a_cleanup_is_the_operators_alone(operator: httpx.Client, shopper: httpx.Client) -> None:
    location = operator.post("/api/maintenance/cleanup").headers["Location"]
    assert_problem(shopper.get(location), "task_not_found")
    assert_problem(shopper.get(f"{location}?wait=20"), "task_not_found")
    assert_problem(operator.get(f"/api/tasks/{uuid7()}?wait=20"), "task_not_found")
    for method in ("GET", "POST"):
        refused = shopper.request(method, "/api/cleanup-expired-sessions")
        assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")


def test_a_cleanup_that_nobody_does_stays_pending(enter: Enter, idle: Service) -> None:
    operator = enter(role="service_role", url=idle.stack.url)
    accepted = operator.post("/api/maintenance/cleanup", headers={"Prefer": "wait=1"})
    assert (accepted.status_code, accepted.headers["Preference-Applied"]) == (202, "wait=1")
    task: dict[str, Any] = operator.get(accepted.headers["Location"]).json()
    assert (task["state"], task["result"], task["error"], task["finished_at"]) == ("PENDING", None, None, None)


def test_a_cleanup_that_fails_says_so(operator: httpx.Client, service: Service) -> None:
    """Its run is on record with an error, as the maintenance worker leaves it."""
    accepted = operator.post("/api/maintenance/cleanup", headers={"Prefer": "wait=20"})
    service.sql.execute(
        "UPDATE maintenance_runs SET error = 'OperationalError' WHERE cleanup_id = %s AND task LIKE '%%delete%%'",
        [accepted.json()["id"]],
    )
    task = operator.get(accepted.headers["Location"]).json()
    assert (task["state"], task["result"], task["error"]["code"]) == ("FAILURE", None, "internal_error")
