"""The paths that the shop's frontend calls today, in its own words."""

import httpx
import pytest
from uuid_utils.compat import uuid7

from tests.api.asking import begin
from tests.api.conftest import Enter, Service
from tests.api.contract import SESSION, assert_old_refusal, new_user

OLD_SESSION = {
    "id", "userId", "status", "valid", "next", "package", "step", "data", "origin", "previousSessionId", "successorId",
    "paymentReference", "secondsLeft", "createdAt", "updatedAt", "expiresAt", "completedAt",
}  # fmt: skip


def create(client: httpx.Client, **body: object) -> httpx.Response:
    """As the frontend creates."""
    return client.post("/api/create-checkout-session", json={"packageId": "silver", **body})


def post(client: httpx.Client, verb: str, session_id: str, **body: object) -> httpx.Response:
    """As the frontend does all else."""
    return client.post(f"/api/{verb}-checkout-session", json={"sessionId": session_id, **body})


def test_a_whole_life_in_the_old_words(shopper: httpx.Client, user_id: str, service: Service) -> None:
    made = create(shopper, data={"firstSeat": 2, "some_key": {"innerKey": 1}})
    assert made.status_code == 200
    first = made.json()
    assert first.keys() == {"sessionId", "status", "expiresAt", "renewed"}
    assert (first["status"], first["renewed"]) == ("active", False)
    assert first["expiresAt"].endswith("Z")

    validated = post(shopper, "validate", first["sessionId"])
    assert validated.status_code == 200
    assert validated.json().keys() == {"valid", "status", "session", "successorId"}
    assert (validated.json()["valid"], validated.json()["successorId"]) == (True, None)
    session = validated.json()["session"]
    assert session.keys() == OLD_SESSION
    assert len(OLD_SESSION) == len(SESSION)
    assert (session["userId"], session["package"]) == (user_id, "silver")
    assert session["data"] == {"firstSeat": 2, "some_key": {"innerKey": 1}}  # the shop's own names stay as they are

    renewed = create(shopper, packageId="gold", existingSessionId=first["sessionId"]).json()
    assert (renewed["renewed"], renewed["status"]) == (True, "active")
    old = post(shopper, "validate", first["sessionId"]).json()
    assert (old["valid"], old["status"], old["successorId"]) == (False, "invalidated", renewed["sessionId"])

    service.age(renewed["sessionId"], 2)
    reference = {"paymentReference": user_id}
    late = post(shopper, "complete", renewed["sessionId"], **reference)
    assert late.status_code == 409
    assert_old_refusal(late, "session_expired")
    assert late.json()["next"] == "recover"

    recovered = post(shopper, "recover", renewed["sessionId"])
    assert recovered.status_code == 200
    assert recovered.json().keys() == {"recovered", "sessionId", "message"}
    assert recovered.json()["recovered"] is True
    assert recovered.json()["sessionId"] not in (first["sessionId"], renewed["sessionId"])

    done = post(shopper, "complete", recovered.json()["sessionId"], **reference)
    assert done.status_code == 200
    assert done.json().keys() == {"success", "session"}
    assert done.json()["success"] is True
    assert done.json()["session"].keys() == OLD_SESSION
    assert (done.json()["session"]["status"], done.json()["session"]["paymentReference"]) == ("completed", user_id)
    assert post(shopper, "complete", recovered.json()["sessionId"], **reference).json() == done.json()


def test_refusals_in_the_old_words(shopper: httpx.Client) -> None:
    unknown = str(uuid7())
    for response, status, code in (
        (post(shopper, "validate", unknown), 404, "session_not_found"),
        (post(shopper, "validate", "an old id"), 404, "session_not_found"),
        (post(shopper, "recover", unknown), 410, "session_unrecoverable"),
        (post(shopper, "complete", unknown, paymentReference="p"), 404, "session_not_found"),
        (shopper.post("/api/create-checkout-session", json={}), 422, "invalid_request"),
        (shopper.post("/api/validate-checkout-session", json={"session_id": unknown}), 422, "invalid_request"),
        (shopper.get("/api/recover-checkout-session"), 405, "method_not_allowed"),
    ):
        assert response.status_code == status
        assert_old_refusal(response, code)
    session = create(shopper).json()["sessionId"]
    post(shopper, "complete", session, paymentReference=session)
    for response in (
        post(shopper, "complete", session, paymentReference="another"),
        post(shopper, "recover", session),
        create(shopper, existingSessionId=session),
    ):
        assert response.status_code == 409
        assert_old_refusal(response, "already_completed")
    second = create(shopper).json()["sessionId"]
    assert_old_refusal(post(shopper, "complete", second, paymentReference=session), "payment_reference_used")


def test_an_unknown_existing_session_is_created_anew(shopper: httpx.Client) -> None:
    made = create(shopper, existingSessionId="sess_of_last_year")
    assert (made.status_code, made.json()["renewed"]) == (200, False)


def test_what_the_old_shop_sent_beside_is_ignored(shopper: httpx.Client, service: Service) -> None:
    """A user id in the body counts for a service token only, as it did; unknown fields do no harm."""
    other = new_user()
    made = create(shopper, userId=other, currency="EUR", step=3)
    assert made.status_code == 200
    assert service.count("checkout_sessions", other) == 0


def test_a_service_names_the_user(operator: httpx.Client, user_id: str, enter: Enter) -> None:
    assert_old_refusal(create(operator), "invalid_request")
    made = create(operator, userId=user_id).json()["sessionId"]
    assert enter(user_id).get("/api/sessions/current").json()["id"] == made
    assert post(operator, "validate", made).json()["session"]["userId"] == user_id
    assert post(operator, "recover", made, userId=user_id).json()["sessionId"] == made
    assert_old_refusal(post(operator, "recover", made, userId=new_user()), "session_unrecoverable")
    done = post(operator, "complete", made, userId=user_id, paymentReference=made)
    assert done.json()["session"]["userId"] == user_id


def test_anothers_session_is_unknown_on_the_old_paths_too(shopper: httpx.Client, enter: Enter) -> None:
    session = begin(shopper)["id"]
    stranger = enter()
    for verb, more in (("validate", {}), ("recover", {}), ("complete", {"paymentReference": "p"})):
        theirs, unknown = (post(stranger, verb, one, **more) for one in (session, str(uuid7())))
        assert (theirs.status_code, theirs.content) == (unknown.status_code, unknown.content)
        assert theirs.status_code in (404, 410)
    assert shopper.get(f"/api/sessions/{session}").json()["status"] == "active"


def test_an_idempotency_key_counts_on_the_old_paths_too(shopper: httpx.Client) -> None:
    key = {"Idempotency-Key": "k"}
    first, second = (
        shopper.post("/api/create-checkout-session", json={"packageId": "p"}, headers=key) for _ in range(2)
    )
    assert first.json() == second.json()
    new_path = shopper.post("/api/sessions", json={"package": "p"}, headers={**key, "Prefer": "wait=20"})
    assert new_path.json()["session_id"] == first.json()["sessionId"]
    other = shopper.post("/api/create-checkout-session", json={"packageId": "q"}, headers=key)
    assert_old_refusal(other, "idempotency_key_reused")


def test_a_session_to_be_is_pending_on_the_old_paths(enter: Enter, idle: Service) -> None:
    client = enter(url=idle.stack.url)
    session_id = client.post("/api/sessions", json={"package": "p"}).json()["session_id"]
    pending = post(client, "validate", session_id)
    assert (pending.status_code, pending.json()["next"], pending.headers["Retry-After"]) == (404, "wait", "1")
    assert_old_refusal(pending, "session_pending")


@pytest.mark.parametrize("body", [[], "x", 1, {"sessionId": 1}, {"sessionId": ""}, {"sessionId": None}, {}])
def test_bodies_that_do_not_fit(shopper: httpx.Client, body: object) -> None:
    for verb in ("validate", "recover", "complete"):
        response = shopper.post(f"/api/{verb}-checkout-session", json=body)
        assert response.status_code == 422
        assert_old_refusal(response, "invalid_request")
