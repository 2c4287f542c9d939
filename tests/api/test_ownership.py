"""Another's session or task, and one that never was, cannot be told apart; a service manages all."""

from typing import Any

import httpx
import pytest
from uuid_utils.compat import uuid7

from tests.api.asking import begin, finished
from tests.api.conftest import Enter, Service
from tests.api.contract import assert_problem, new_user

WRITES = [("renew", {"package": "gold"}), ("recover", {}), ("complete", {"payment_reference": "stolen"})]


def without(body: dict[str, Any], *names: str) -> dict[str, Any]:
    """A body without what differs by nature."""
    return {name: value for name, value in body.items() if name not in names}


def test_reads_of_anothers_session_answer_as_of_an_unknown_one(shopper: httpx.Client, enter: Enter) -> None:
    session = begin(shopper)
    stranger = enter()
    for suffix in ("", "/history"):
        theirs = stranger.get(f"/api/sessions/{session['id']}{suffix}")
        unknown = stranger.get(f"/api/sessions/{uuid7()}{suffix}")
        assert_problem(theirs, "session_not_found", "restart")
        assert (theirs.status_code, theirs.content) == (unknown.status_code, unknown.content)
        kept = {"date", "x-request-id"}
        assert {k: v for k, v in theirs.headers.items() if k not in kept} == {
            k: v for k, v in unknown.headers.items() if k not in kept
        }


@pytest.mark.parametrize(("verb", "body"), WRITES)
def test_writes_to_anothers_session_end_as_those_to_an_unknown_one_and_leave_it_alone(
    shopper: httpx.Client, enter: Enter, verb: str, body: dict[str, Any]
) -> None:
    session = begin(shopper, data={"seats": 2})
    before = shopper.get(f"/api/sessions/{session['id']}/history").json()
    ends = []
    for session_id in (session["id"], str(uuid7())):
        stranger = enter()
        task = finished(stranger, stranger.post(f"/api/sessions/{session_id}/{verb}", json=body))
        if task["result"]:
            assert task["session_id"] != session_id
            task["result"] = without(
                task["result"], "id", "user_id", "created_at", "updated_at", "expires_at", "seconds_left"
            )
        else:
            assert task["session_id"] == task["error"]["session_id"] == session_id
            task["error"] = without(task["error"], "session_id")
        ends.append(without(task, "id", "session_id", "accepted_at", "finished_at"))
    assert ends[0] == ends[1]
    after = shopper.get(f"/api/sessions/{session['id']}/history").json()
    assert [without(one, "seconds_left") for one in after["sessions"]] == [
        without(one, "seconds_left") for one in before["sessions"]
    ]
    assert after["tasks"] == before["tasks"]


def test_a_line_is_not_followed_into_anothers_sessions(patient: httpx.Client, enter: Enter) -> None:
    first = begin(patient)
    second = patient.post(f"/api/sessions/{first['id']}/renew", json={"package": "gold"}).json()["result"]
    stranger = enter(Prefer="wait=20")
    taken = stranger.post(f"/api/sessions/{first['id']}/renew", json={"package": "ruby"}).json()["result"]
    assert (taken["origin"], taken["previous_session_id"], taken["data"]) == ("created", None, {})
    assert patient.get("/api/sessions/current").json()["id"] == second["id"]


def test_a_user_may_name_themselves_and_nobody_else(shopper: httpx.Client, user_id: str, service: Service) -> None:
    assert shopper.post("/api/sessions", json={"package": "x", "user_id": user_id}).status_code == 202
    other = new_user()
    session = begin(shopper)
    for path, body in (("", {"package": "x"}), *((f"/{session['id']}/{verb}", body) for verb, body in WRITES)):
        response = shopper.post(f"/api/sessions{path}", json={**body, "user_id": other})
        assert response.status_code == 403
        assert_problem(response, "forbidden", "sign_in")
    response = shopper.patch(f"/api/sessions/{session['id']}", json={"step": "x", "user_id": other})
    assert_problem(response, "forbidden")
    assert service.count("session_tasks", other) == 0


def test_a_service_acts_for_the_user_that_it_names(operator: httpx.Client, shopper: httpx.Client, user_id: str) -> None:
    task = finished(operator, operator.post("/api/sessions", json={"package": "silver", "user_id": user_id}))
    session = shopper.get(f"/api/sessions/{task['session_id']}").json()
    assert session["user_id"] == user_id
    assert operator.get(f"/api/sessions/{session['id']}").json()["id"] == session["id"]
    assert operator.get(f"/api/sessions/{session['id']}/history").json()["tasks"][0]["id"] == task["id"]
    assert operator.patch(f"/api/sessions/{session['id']}", json={"step": "x"}).json()["step"] == "x"
    named = operator.patch(f"/api/sessions/{session['id']}", json={"step": "y", "user_id": user_id})
    assert named.json()["step"] == "y"
    another = operator.patch(f"/api/sessions/{session['id']}", json={"step": "z", "user_id": new_user()})
    assert_problem(another, "session_not_found")
    for verb, body in WRITES:
        done = operator.post(
            f"/api/sessions/{session['id']}/{verb}",
            json={**body, "user_id": user_id, **({"payment_reference": user_id} if verb == "complete" else {})},
            headers={"Prefer": "wait=20"},
        )
        assert done.status_code == 200 if verb != "complete" else (200, 409)
        assert done.json()["result"]["user_id"] == user_id


def test_a_service_must_name_the_user(operator: httpx.Client) -> None:
    for path, body in (("", {"package": "x"}), *((f"/{uuid7()}/{verb}", body) for verb, body in WRITES)):
        response = operator.post(f"/api/sessions{path}", json=body)
        assert_problem(response, "invalid_request", "fix")
        assert "`user_id`" in response.json()["detail"]


def test_a_service_that_names_another_user_reaches_nothing(
    operator: httpx.Client, shopper: httpx.Client, enter: Enter
) -> None:
    session = begin(shopper)
    task = finished(
        operator,
        operator.post(
            f"/api/sessions/{session['id']}/complete", json={"payment_reference": "x", "user_id": new_user()}
        ),
    )
    assert task["error"]["code"] == "session_not_found"
    assert shopper.get(f"/api/sessions/{session['id']}").json()["status"] == "active"


def test_the_operators_door_is_closed_to_shoppers(shopper: httpx.Client) -> None:
    response = shopper.post("/api/maintenance/cleanup")
    assert response.status_code == 403
    assert_problem(response, "forbidden")
    assert response.headers["WWW-Authenticate"] == 'Bearer error="insufficient_scope"'
