"""The life of a session by HTTP alone, over real workers and beat."""

import pytest

from tests.stack import Stack, eventually

pytestmark = pytest.mark.acceptance


def test_a_session_lives_its_whole_life_with_a_ttl_of_seconds(stack: Stack) -> None:
    stack.env |= {"SESSION_TTL_SECONDS": "3", "SESSION_RETENTION_SECONDS": "3"}
    for name in ("api", "worker"):  # no beat: what counts is computed
        stack.start(name)
    with stack.client("shopper", Prefer="wait=20") as shopper:
        created = shopper.post("/api/sessions", json={"package": "silver", "step": "packages", "data": {"seats": 2}})
        assert created.status_code == 201, created.text
        first = created.json()["session_id"]
        renewed = shopper.post(f"/api/sessions/{first}/renew", json={"package": "gold"}).json()
        second = renewed["session_id"]
        assert renewed["result"]["package"] == "gold"
        assert renewed["result"]["data"] == {"seats": 2}
        assert shopper.get(f"/api/sessions/{first}").json()["status"] == "invalidated"
        assert shopper.get(f"/api/sessions/{first}").json()["successor_id"] == second

        expired = eventually(lambda: (s := shopper.get(f"/api/sessions/{second}").json())["status"] == "expired" and s)
        assert (expired["valid"], expired["next"]) == (False, "recover")
        late = shopper.post(f"/api/sessions/{second}/complete", json={"payment_reference": "pay-1"})
        assert (late.status_code, late.json()["code"], late.json()["next"]) == (409, "session_expired", "recover")
        third = shopper.post(f"/api/sessions/{second}/recover").json()["session_id"]
        done = shopper.post(f"/api/sessions/{third}/complete", json={"payment_reference": "pay-1"})
        assert (done.status_code, done.json()["result"]["status"]) == (200, "completed")
        again = shopper.post(f"/api/sessions/{third}/complete", json={"payment_reference": "pay-1"})
        assert (again.status_code, again.json()["session_id"]) == (200, third)
        other = shopper.post(f"/api/sessions/{third}/complete", json={"payment_reference": "pay-2"})
        assert (other.status_code, other.json()["code"]) == (409, "already_completed")

        stack.env |= {"EXPIRE_INTERVAL_SECONDS": "0.5", "DELETE_INTERVAL_SECONDS": "0.5"}
        stack.start("maintenance")
        stack.start("beat")
        eventually(lambda: shopper.get(f"/api/sessions/{second}").status_code == 404, "beat deletes what is due")
        assert shopper.get(f"/api/sessions/{third}").json()["status"] == "completed"
