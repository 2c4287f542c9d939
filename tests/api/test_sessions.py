"""The five operations and the reads, by HTTP: status, headers, every key."""

import asyncio
from datetime import UTC, datetime, timedelta
from uuid import UUID

import httpx
import pytest
from uuid_utils.compat import uuid7

from tests.api.asking import begin, finished
from tests.api.conftest import Crowd, Enter, Service
from tests.api.contract import ACCEPTED, SESSION, TASK, assert_problem
from tests.stack import eventually


def a_time(text: str) -> datetime:
    """A time of the contract: RFC 3339 in UTC, written with Z."""
    assert text.endswith("Z")
    return datetime.fromisoformat(text)


def uuid7_of(age: timedelta) -> UUID:
    """A UUIDv7 that was made so long ago."""
    milliseconds = int((datetime.now(UTC) - age).timestamp() * 1000)
    return UUID(int=(milliseconds << 80) | (uuid7().int & ((1 << 80) - 1)))


def test_a_create_is_accepted_polled_and_read(shopper: httpx.Client, user_id: str) -> None:
    body = {"package": "silver", "step": "packages", "data": {"seats": 2, "none": None, "deep": {"kept": None}}}
    accepted = shopper.post("/api/sessions", json=body)
    assert accepted.status_code == 202
    assert accepted.headers["Content-Type"] == "application/json"
    assert "Preference-Applied" not in accepted.headers
    answer = accepted.json()
    assert answer.keys() == ACCEPTED
    assert answer["state"] == "PENDING"
    assert UUID(answer["task_id"]).version == UUID(answer["session_id"]).version == 7
    assert accepted.headers["Location"] == f"/api/tasks/{answer['task_id']}"

    task = finished(shopper, accepted)
    assert task.keys() == TASK
    assert (task["id"], task["session_id"]) == (answer["task_id"], answer["session_id"])
    assert (task["kind"], task["state"], task["error"]) == ("create", "SUCCESS", None)
    assert a_time(task["accepted_at"]) <= a_time(task["finished_at"])

    read = shopper.get(f"/api/sessions/{answer['session_id']}")
    assert read.status_code == 200
    session = read.json()
    assert session.keys() == SESSION
    assert task["result"].keys() == SESSION
    assert task["result"] | {"seconds_left": 0} == session | {"seconds_left": 0}
    assert 86_300 < session["seconds_left"] <= 86_400
    created, expires = a_time(session["created_at"]), a_time(session["expires_at"])
    assert expires - created == timedelta(days=1)
    assert session == {
        "id": answer["session_id"],
        "user_id": user_id,
        "status": "active",
        "valid": True,
        "next": "continue",
        "package": "silver",
        "step": "packages",
        "data": {"seats": 2, "deep": {"kept": None}},
        "origin": "created",
        "previous_session_id": None,
        "successor_id": None,
        "payment_reference": None,
        "seconds_left": session["seconds_left"],
        "created_at": session["created_at"],
        "updated_at": session["created_at"],
        "expires_at": session["expires_at"],
        "completed_at": None,
    }


def test_a_session_to_be_is_pending_until_it_is_there(shopper: httpx.Client) -> None:
    """However the looks fall between the two: whoever polls it never hears that there is no such session."""
    for _ in range(20):
        session_id = shopper.post("/api/sessions", json={"package": "silver"}).json()["session_id"]
        while (response := shopper.get(f"/api/sessions/{session_id}")).status_code != 200:
            assert response.json()["code"] == "session_pending"
        assert response.json()["id"] == session_id


def test_a_create_that_waits_answers_201_with_the_finished_task(shopper: httpx.Client) -> None:
    response = shopper.post("/api/sessions", json={"package": "silver"}, headers={"Prefer": "wait=20"})
    assert response.status_code == 201
    assert response.headers["Preference-Applied"] == "wait=20"
    task = response.json()
    assert task.keys() == TASK
    assert response.headers["Location"] == f"/api/tasks/{task['id']}"
    assert (task["state"], task["result"]["id"], task["result"]["step"]) == ("SUCCESS", task["session_id"], None)
    assert task["result"]["data"] == {}


def test_a_newer_create_invalidates_and_the_older_one_points_at_it(shopper: httpx.Client) -> None:
    first, second = begin(shopper), begin(shopper, package="gold")
    old = shopper.get(f"/api/sessions/{first['id']}").json()
    assert (old["status"], old["valid"], old["next"], old["seconds_left"]) == ("invalidated", False, "recover", 0)
    assert old["successor_id"] == second["id"]
    assert second["previous_session_id"] is None


def test_renew_keeps_everything_but_the_package(patient: httpx.Client) -> None:
    first = begin(patient, step="checkout", data={"seats": 2, "voucher": "x", "address": {"city": "Ulm", "zip": "1"}})
    response = patient.post(
        f"/api/sessions/{first['id']}/renew",
        json={"package": "gold", "data": {"voucher": None, "address": {"city": "Bonn"}}},
    )
    assert response.status_code == 200
    assert response.headers["Preference-Applied"] == "wait=20"
    task = response.json()
    assert (task.keys(), task["kind"], task["result"]["id"]) == (TASK, "renew", task["session_id"])
    new = task["result"]
    assert (new["package"], new["step"], new["origin"], new["status"]) == ("gold", "checkout", "renewed", "active")
    assert new["data"] == {"seats": 2, "address": {"city": "Bonn"}}
    assert new["previous_session_id"] == first["id"] != new["id"]
    old = patient.get(f"/api/sessions/{first['id']}").json()
    assert (old["status"], old["successor_id"], old["data"]["voucher"]) == ("invalidated", new["id"], "x")


def test_renew_from_an_old_tab_renews_the_newest_of_the_line(patient: httpx.Client) -> None:
    first = begin(patient)
    second = patient.post(f"/api/sessions/{first['id']}/renew", json={"package": "gold"}).json()["result"]
    third = patient.post(f"/api/sessions/{first['id']}/renew", json={"package": "ruby"}).json()["result"]
    assert third["previous_session_id"] == second["id"]
    assert third["package"] == "ruby"


def test_renew_of_an_unknown_session_acts_as_create(shopper: httpx.Client) -> None:
    unknown = str(uuid7())
    accepted = shopper.post(f"/api/sessions/{unknown}/renew", json={"package": "gold"})
    assert accepted.json()["session_id"] == unknown  # what was addressed, while it is pending
    task = finished(shopper, accepted)
    assert task["session_id"] != unknown
    assert (task["result"]["origin"], task["result"]["previous_session_id"]) == ("created", None)


def test_renew_of_an_expired_session_recovers_it(patient: httpx.Client, service: Service) -> None:
    first = begin(patient, data={"seats": 2})
    service.age(first["id"], 2)
    assert patient.get(f"/api/sessions/{first['id']}").json()["status"] == "expired"
    new = patient.post(f"/api/sessions/{first['id']}/renew", json={"package": "gold"}).json()["result"]
    assert (new["origin"], new["data"], new["previous_session_id"]) == ("recovered", {"seats": 2}, first["id"])
    assert patient.get(f"/api/sessions/{first['id']}").json()["status"] == "expired"  # touched: never `invalidated`


def test_recover_of_an_expired_session_brings_back_package_step_and_data(
    patient: httpx.Client, service: Service
) -> None:
    first = begin(patient, package="gold", step="checkout", data={"seats": 2})
    service.age(first["id"], 2)
    response = patient.post(f"/api/sessions/{first['id']}/recover")
    assert response.status_code == 200
    new = response.json()["result"]
    assert (new["package"], new["step"], new["data"], new["origin"]) == ("gold", "checkout", {"seats": 2}, "recovered")
    assert 86_300 < new["seconds_left"] <= 86_400
    assert patient.get(f"/api/sessions/{first['id']}").json()["successor_id"] == new["id"]


def test_recover_gives_the_active_session_if_there_is_one(patient: httpx.Client) -> None:
    first, second = begin(patient), begin(patient, package="gold")
    for addressed in (first["id"], second["id"], str(uuid7())):
        task = patient.post(f"/api/sessions/{addressed}/recover", json={}).json()
        assert (task["kind"], task["session_id"], task["result"]["status"]) == ("recover", second["id"], "active")


async def recover_ten_times(crowd: Crowd, user_id: str, session_id: str) -> set[str]:
    """Ten clicks at once; the ids of the sessions that came of them."""
    async with crowd(user_id, Prefer="wait=20") as client:
        clicks = [client.post(f"/api/sessions/{session_id}/recover") for _ in range(10)]
        return {response.json()["session_id"] for response in await asyncio.gather(*clicks)}


def test_ten_clicks_on_recover_give_one_session(
    patient: httpx.Client, crowd: Crowd, user_id: str, service: Service
) -> None:
    first = begin(patient)
    service.age(first["id"], 2)
    assert len(asyncio.run(recover_ten_times(crowd, user_id, first["id"]))) == 1
    assert service.count("checkout_sessions", user_id) == 2


@pytest.mark.parametrize(
    ("days", "detail"),
    [(8, "The session was deleted after its retention."), (1, "No such session was ever made for this user.")],
)
def test_recover_tells_deleted_from_never_made(patient: httpx.Client, days: int, detail: str) -> None:
    lost = str(uuid7_of(timedelta(days=days)))
    response = patient.post(f"/api/sessions/{lost}/recover")
    task_id = response.headers["Location"].rpartition("/")[2]
    problem = assert_problem(response, "session_unrecoverable", "restart", task_id=task_id, session_id=lost)
    assert problem["detail"] == detail
    assert response.status_code == 410
    assert response.headers["Preference-Applied"] == "wait=20"
    task = patient.get(response.headers["Location"]).json()
    assert (task["state"], task["session_id"], task["result"]) == ("FAILURE", lost, None)
    assert task["error"] == {key: value for key, value in problem.items() if key != "task_id"}


def test_complete_and_complete_again(patient: httpx.Client) -> None:
    session = begin(patient, step="checkout")
    path, reference = f"/api/sessions/{session['id']}/complete", f"pay-{session['id']}"
    response = patient.post(path, json={"payment_reference": reference})
    assert response.status_code == 200
    task = response.json()
    done = task["result"]
    assert (task["kind"], done["status"], done["valid"], done["next"]) == ("complete", "completed", False, "done")
    assert (done["payment_reference"], done["seconds_left"]) == (reference, 0)
    assert a_time(done["created_at"]) <= a_time(done["completed_at"])

    again = patient.post(path, json={"payment_reference": reference})
    assert (again.status_code, again.json()["result"]) == (200, done)
    assert again.json()["id"] != task["id"]

    other = patient.post(path, json={"payment_reference": "another"})
    task_id = other.headers["Location"].rpartition("/")[2]
    assert_problem(other, "already_completed", "done", task_id=task_id, session_id=session["id"])
    for verb, body in (("renew", {"package": "gold"}), ("recover", {})):
        refused = patient.post(f"/api/sessions/{session['id']}/{verb}", json=body)
        assert (refused.status_code, refused.json()["code"]) == (409, "already_completed")
    assert patient.get(f"/api/sessions/{session['id']}").json() == done


def test_one_payment_completes_one_session(patient: httpx.Client, enter: Enter) -> None:
    reference = str(uuid7())
    first = begin(patient)
    patient.post(f"/api/sessions/{first['id']}/complete", json={"payment_reference": reference})
    second = begin(patient)
    response = patient.post(f"/api/sessions/{second['id']}/complete", json={"payment_reference": reference})
    task_id = response.headers["Location"].rpartition("/")[2]
    assert_problem(response, "payment_reference_used", "done", task_id=task_id, session_id=second["id"])
    stranger = enter(Prefer="wait=20")
    third = begin(stranger)
    response = stranger.post(f"/api/sessions/{third['id']}/complete", json={"payment_reference": reference})
    assert response.json()["code"] == "payment_reference_used"


def test_complete_after_expiry_says_recover_and_then_works(patient: httpx.Client, service: Service) -> None:
    session, body = begin(patient), {"payment_reference": str(uuid7())}
    service.age(session["id"], 2)
    response = patient.post(f"/api/sessions/{session['id']}/complete", json=body)
    task_id = response.headers["Location"].rpartition("/")[2]
    assert_problem(response, "session_expired", "recover", task_id=task_id, session_id=session["id"])
    new = patient.post(f"/api/sessions/{session['id']}/recover").json()["session_id"]
    assert patient.post(f"/api/sessions/{new}/complete", json=body).json()["result"]["status"] == "completed"


def test_complete_of_an_unknown_session(patient: httpx.Client) -> None:
    unknown = str(uuid7())
    response = patient.post(f"/api/sessions/{unknown}/complete", json={"payment_reference": "p"})
    task_id = response.headers["Location"].rpartition("/")[2]
    assert_problem(response, "session_not_found", "restart", task_id=task_id, session_id=unknown)


def test_current_is_the_active_session_or_none(shopper: httpx.Client, service: Service) -> None:
    assert_problem(shopper.get("/api/sessions/current"), "no_active_session", "restart")
    begin(shopper)
    second = begin(shopper)
    current = shopper.get("/api/sessions/current")
    assert (current.status_code, current.json()["id"]) == (200, second["id"])
    assert current.json().keys() == SESSION
    service.age(second["id"], 2)
    assert_problem(shopper.get("/api/sessions/current"), "no_active_session")


def test_history_tells_the_line_and_what_was_asked_of_it(patient: httpx.Client, service: Service) -> None:
    first = begin(patient)
    second = patient.post(f"/api/sessions/{first['id']}/renew", json={"package": "gold"}).json()["session_id"]
    service.age(second, 2)
    refused = patient.post(f"/api/sessions/{second}/complete", json={"payment_reference": str(uuid7())})
    third = patient.post(f"/api/sessions/{second}/recover").json()["session_id"]
    begin(patient)  # another line
    histories = [patient.get(f"/api/sessions/{session}/history") for session in (first["id"], second, third)]
    history = histories[0].json()
    assert all(one.json() == history for one in histories)
    assert history.keys() == {"sessions", "tasks", "timeline"}
    assert [session["id"] for session in history["sessions"]] == [first["id"], second, third]
    assert [session["status"] for session in history["sessions"]] == ["invalidated", "expired", "invalidated"]
    assert all(session.keys() == SESSION for session in history["sessions"])
    tasks = history["tasks"]
    assert [task["kind"] for task in tasks] == ["create", "renew", "complete", "recover"]
    assert [task["refusal"] for task in tasks] == [None, None, "session_expired", None]
    assert tasks[2]["id"] == refused.json()["task_id"]
    assert [task["session_id"] for task in tasks] == [first["id"], first["id"], second, second]
    assert [task["result_session_id"] for task in tasks] == [first["id"], second, second, third]
    assert all(
        task.keys()
        == {
            "id", "seq", "kind", "user_id", "state", "session_id", "result_session_id", "accepted_at", "finished_at",
            "refusal", "reason", "request_id", "rings", "attempts", "worker", "celery_task_id",
        }
        for task in tasks
    )  # fmt: skip


def test_ids_of_the_older_shop_are_found_under_their_md5(shopper: httpx.Client, user_id: str, service: Service) -> None:
    old_id = f"sess_{user_id}"
    row = service.one(
        """INSERT INTO checkout_sessions
        (id, user_id, status, package, origin, line_id, line_position, line_began_at, expires_at)
        SELECT md5(%s)::uuid, %s, 'active', 'gold', 'created', md5(%s)::uuid, 0, now(), now() + interval '1 hour'
        RETURNING id""",
        old_id, user_id, old_id,
    )  # fmt: skip
    session = shopper.get(f"/api/sessions/{old_id}").json()
    assert (session["id"], session["package"], session["step"], session["data"]) == (str(row["id"]), "gold", None, {})
    assert shopper.get(f"/api/sessions/{row['id']}").json()["id"] == session["id"]
    renewed = finished(shopper, shopper.post(f"/api/sessions/{old_id}/renew", json={"package": "ruby"}))
    assert renewed["result"]["previous_session_id"] == session["id"]


def test_history_knows_nothing_of_what_others_asked_of_the_session(
    patient: httpx.Client, enter: Enter, service: Service
) -> None:
    session = begin(patient)
    stranger = enter(Prefer="wait=20")
    assert stranger.post(f"/api/sessions/{session['id']}/recover").json()["code"] == "session_unrecoverable"
    history = patient.get(f"/api/sessions/{session['id']}/history").json()
    assert [task["kind"] for task in history["tasks"]] == ["create"]


def test_history_of_a_long_line_is_its_newest_part(patient: httpx.Client, service: Service) -> None:
    session = begin(patient)
    service.sql.execute(
        """INSERT INTO checkout_sessions (id, user_id, status, package, origin, line_id, line_position, line_began_at,
        previous_session_id, expires_at)
        SELECT md5(id::text || n)::uuid, user_id, 'invalidated', 'p' || n, 'renewed', id, n, now(), id, expires_at
        FROM checkout_sessions, generate_series(1, 60) AS n WHERE id = %s""",
        [session["id"]],
    )
    history = patient.get(f"/api/sessions/{session['id']}/history").json()
    assert [one["package"] for one in history["sessions"]] == [f"p{n}" for n in range(11, 61)]
    assert history["tasks"] == []


@pytest.mark.parametrize(
    "malformed",
    ["1", "x" * 2_000, "0198", "%00", "%F0%9F%98%80", "current2", "..%2e", "-1", "null", "{session_id}", "%25", "a b"],
)
def test_a_malformed_id_is_as_unknown_as_any(shopper: httpx.Client, malformed: str) -> None:
    assert_problem(shopper.get(f"/api/sessions/{malformed}"), "session_not_found", "restart")
    assert_problem(shopper.get(f"/api/sessions/{malformed}/history"), "session_not_found")
    assert_problem(shopper.patch(f"/api/sessions/{malformed}", json={"step": "x"}), "session_not_found")
    assert_problem(shopper.get(f"/api/tasks/{malformed}"), "task_not_found", "restart")


def test_an_id_in_capitals_is_the_same_id(shopper: httpx.Client) -> None:
    session = begin(shopper)
    assert shopper.get(f"/api/sessions/{session['id'].upper()}").json()["id"] == session["id"]


def test_a_task_that_keeps_failing_is_given_up(patient: httpx.Client, service: Service) -> None:
    """Postgres refuses the row, once for each try; what the user asks next rings for it again."""
    service.sql.execute("""
        CREATE OR REPLACE FUNCTION refuse_poison() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN RAISE EXCEPTION 'poison'; END $$;
        CREATE OR REPLACE TRIGGER refuse_poison BEFORE INSERT ON checkout_sessions
        FOR EACH ROW WHEN (NEW.package = 'poison') EXECUTE FUNCTION refuse_poison();
    """)
    poisoned = patient.post("/api/sessions", json={"package": "poison"}, headers={"Prefer": "wait=0"})
    task_id = poisoned.json()["task_id"]
    eventually(
        lambda: service.one("SELECT attempts FROM session_tasks WHERE id = %s", task_id)["attempts"], "it was tried"
    )
    session = begin(patient)
    assert session["status"] == "active"
    task = patient.get(poisoned.headers["Location"]).json()
    assert (task["state"], task["result"], task["error"]["code"]) == ("FAILURE", None, "gave_up")
    body = {"package": "poison"}
    again = patient.post("/api/sessions", json=body, headers={"Idempotency-Key": "k", "Prefer": "wait=0"})
    eventually(
        lambda: service.one("SELECT attempts FROM session_tasks WHERE id = %s", again.json()["task_id"])["attempts"],
        "it was tried",
    )
    begin(patient)
    given_up = patient.post("/api/sessions", json=body, headers={"Idempotency-Key": "k"})
    assert_problem(given_up, "gave_up", "retry", task_id=again.json()["task_id"], session_id=again.json()["session_id"])
    assert given_up.headers["Retry-After"] == "5"
