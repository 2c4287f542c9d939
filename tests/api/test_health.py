"""Live, ready and measured, in each state that a service can be in."""

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from local.servers import EmbeddedPostgres
from tests.api.conftest import Enter, Service
from tests.conftest import create_database
from tests.stack import ROOT, Stack, eventually

CHECKS = {"postgres", "schema", "redis", "workers", "cleanup"}


def ready(client: httpx.Client, status: str) -> dict[str, Any]:
    """Wait until the service says that it is in this state."""

    def look() -> dict[str, Any] | None:
        response = client.get("/readyz")
        body: dict[str, Any] = response.json()
        assert body.keys() == {"status", "accept", "execute", "checks"}
        assert body["checks"].keys() == CHECKS
        assert response.status_code == (200 if body["accept"] else 503)
        return body if body["status"] == status else None

    return eventually(look, status)


def test_live(shopper: httpx.Client) -> None:
    response = shopper.get("/healthz")
    assert (response.status_code, response.json()) == (200, {"status": "ok"})


def test_probes_need_no_token(enter: Enter) -> None:
    client = enter()
    del client.headers["Authorization"]
    assert [client.get(path).status_code for path in ("/healthz", "/metrics")] == [200, 200]
    assert [httpx.get(client.base_url.join(path)).status_code for path in ("/docs", "/openapi.json")] == [200, 200]
    assert client.get("/readyz").status_code == 200


def test_not_ready_without_the_schema(
    postgres: EmbeddedPostgres, service: Service, enter: Enter, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """And ready as soon as it is there: nothing is restarted. Until then what is asked is a fault, and says so."""
    url = create_database(postgres, "api_empty")
    with Stack(url, service.stack.env["REDIS_URL"], tmp_path_factory.mktemp("empty")) as stack:
        stack.start("api")
        client = enter(url=stack.url)
        body = ready(client, "unavailable")
        assert body["checks"]["postgres"] == "ok"
        assert body["checks"]["schema"].startswith("missing")
        assert client.get("/healthz").status_code == 200
        for response in (client.get("/api/sessions/x"), client.post("/api/sessions", json={"package": "p"})):
            assert (response.status_code, response.json()["code"]) == (500, "internal_error")
            assert "checkout_sessions" not in response.text, "tells nothing of the inside"
            assert response.headers["X-Request-ID"] in stack.processes[0].log.read_text()
        old = client.post("/api/validate-checkout-session", json={"sessionId": "x"})
        assert (old.status_code, old.json()["code"]) == (500, "internal_error")
        assert 'checkout_sessions_problems_total{code="internal_error"} 3.0' in client.get("/metrics").text
        migrated = [sys.executable, "-m", "db.migrate", "up"]
        subprocess.run(migrated, cwd=ROOT, env={"DATABASE_URL": url}, check=True, capture_output=True)
        ready(client, "ok")
        assert client.post("/api/sessions", json={"package": "p"}).status_code == 202


@pytest.fixture(scope="module")
def deserted(services: Callable[..., Service]) -> Service:
    """An API without workers and beat, on a database of its own."""
    return services("deserted", "api", EXPIRE_INTERVAL_SECONDS="0.1")


def test_ready_then_degraded_while_nobody_executes(deserted: Service, enter: Enter) -> None:
    """However often the sweep has rung for what waits, and whatever is accepted meanwhile."""
    client = enter(url=deserted.stack.url)
    body = ready(client, "ok")
    assert body == {"status": "ok", "accept": True, "execute": True, "checks": dict.fromkeys(CHECKS, "ok")}
    client.post("/api/sessions", json={"package": "p"})
    assert ready(client, "ok")["checks"]["workers"] == "ok"  # it has not waited for long
    deserted.sql.execute(
        "UPDATE session_tasks SET accepted_at = now() - interval '11 s', due_at = now() + interval '1 hour'"
    )
    client.post("/api/sessions", json={"package": "p"})
    body = ready(client, "degraded")
    assert (body["accept"], body["execute"]) == (True, False)
    assert {name for name, check in body["checks"].items() if check != "ok"} == {"workers"}
    assert body["checks"]["workers"].startswith("behind")
    deserted.finish_all()
    ready(client, "ok")


def test_degraded_while_what_expired_is_not_marked(deserted: Service, enter: Enter) -> None:
    """Nothing is wrong for shoppers, reads compute it; operators should know."""
    client = enter(url=deserted.stack.url)
    ready(client, "ok")
    deserted.sql.execute("""
        INSERT INTO checkout_sessions
        (id, user_id, status, package, origin, line_id, line_position, line_began_at, created_at, expires_at)
        SELECT id, 'u', 'active', 'p', 'created', id, 0, now(), now() - interval '2 days', now() - interval '1 day'
        FROM gen_random_uuid() AS id
    """)
    body = ready(client, "degraded")
    assert (body["accept"], body["execute"]) == (True, True)
    assert {name for name, check in body["checks"].items() if check != "ok"} == {"cleanup"}
    assert body["checks"]["cleanup"].startswith("behind")


def test_the_operators_page_is_theirs_alone(operator: httpx.Client, shopper: httpx.Client) -> None:
    shown = operator.get("/api/ops")
    assert shown.status_code == 200
    assert shown.json()
    assert shopper.get("/api/ops").status_code == 403
