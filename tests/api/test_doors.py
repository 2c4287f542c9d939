"""What browsers of other origins, scrapers and readers of the docs may do, and what every answer says to browsers."""

import httpx
import pytest

from tests.api.asking import begin
from tests.api.conftest import Enter, Service
from tests.api.contract import Contract, assert_problem, new_user
from tests.stack import headers

pytestmark = pytest.mark.usefixtures("tidy")

SHOP = "https://shop.example"
OTHERS = [
    "https://evil.example",
    "https://shop.example.evil.example",
    "http://shop.example",
    "null",
    "https://shop.example:8443",
]


@pytest.fixture(scope="module")
def guarded(service: Service) -> str:
    """An API with one origin, without docs, and with figures for services alone."""
    return service.another_api(CORS_ORIGINS=f"{SHOP}, https://www.shop.example", DOCS="0", METRICS="service")


def preflight(
    url: str, origin: str, method: str = "POST", asked: str = "authorization,content-type,prefer"
) -> httpx.Response:
    """What a browser asks before a page of this origin may ask."""
    ask = {"Origin": origin, "Access-Control-Request-Method": method, "Access-Control-Request-Headers": asked}
    return httpx.options(f"{url}/api/sessions", headers=ask)


def allowed_to(response: httpx.Response) -> str | None:
    """The origin that may read it."""
    return response.headers.get("Access-Control-Allow-Origin")


def test_no_other_origin_may_ask_unless_the_setting_names_it(service: Service, enter: Enter) -> None:
    refused = preflight(service.stack.url, SHOP)
    assert (refused.status_code, allowed_to(refused)) == (405, None)
    simple = enter(Origin=SHOP).get("/api/sessions/current")
    assert not [name for name in simple.headers if name.startswith("access-control-")]


@pytest.mark.parametrize("method", ["GET", "POST", "PATCH"])
def test_an_origin_of_the_setting_may_ask(guarded: str, method: str) -> None:
    for origin in (SHOP, "https://www.shop.example"):
        granted = preflight(guarded, origin, method, "authorization,content-type,idempotency-key,prefer,x-request-id")
        assert (granted.status_code, allowed_to(granted)) == (200, origin)
        assert method in granted.headers["Access-Control-Allow-Methods"]
        assert "Access-Control-Allow-Credentials" not in granted.headers
        assert "Origin" in granted.headers["Vary"]
        assert_hardened(granted)


@pytest.mark.parametrize("origin", OTHERS)
def test_another_origin_may_not(guarded: str, origin: str, enter: Enter) -> None:
    refused = preflight(guarded, origin)
    assert (refused.status_code, allowed_to(refused)) == (403, None)
    assert_problem(refused, "origin_refused")
    assert_hardened(refused)
    assert allowed_to(enter(url=guarded, Origin=origin).get("/api/sessions/current")) is None


def test_methods_and_headers_that_nobody_needs_are_refused(guarded: str, contract: Contract) -> None:
    for method, asked in (("DELETE", "authorization"), ("PUT", "authorization"), ("POST", "x-anything")):
        refused = preflight(guarded, SHOP, method, asked)
        assert_problem(refused, "origin_refused")
        contract.codes.add(refused.json()["code"])


def test_a_page_may_read_every_problem(guarded: str, enter: Enter) -> None:
    """Those too that come before anything else is looked at."""
    client = enter(url=guarded, Origin=SHOP)
    for response in (
        client.get("/api/sessions/current"),
        client.get("/nowhere"),
        client.post("/api/sessions", content=b"x" * 70_000),
        client.post("/api/sessions", json={"package": "p"}, headers={"Authorization": ""}),
        client.get("/api/sessions/x", headers={"X-Junk": "x" * 40_000}),
    ):
        assert response.status_code >= 400
        assert allowed_to(response) == SHOP, response.text
        assert "Retry-After" in response.headers["Access-Control-Expose-Headers"]


def test_docs_can_be_closed(guarded: str, service: Service) -> None:
    for path in ("/docs", "/openapi.json", "/redoc", "/docs/oauth2-redirect"):
        assert httpx.get(guarded + path).status_code == 404, path
    page = httpx.get(f"{service.stack.url}/docs")
    assert page.status_code == 200
    assert "script-src https://cdn.jsdelivr.net" in page.headers["Content-Security-Policy"]


def test_metrics_can_be_for_services_alone_and_for_nobody(guarded: str, service: Service, enter: Enter) -> None:
    assert enter(url=guarded, role="service_role").get("/metrics").status_code == 200
    assert_problem(enter(url=guarded).get("/metrics"), "forbidden")
    assert_problem(enter(url=guarded).get("/metrics", headers={"Authorization": ""}), "token_missing")
    closed = service.another_api(METRICS="off")
    assert_problem(enter(url=closed, role="service_role").get("/metrics"), "not_found")


def assert_hardened(response: httpx.Response) -> None:
    """Nothing of it is guessed, kept, framed, run or told to others."""
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.headers["Cache-Control"] == "no-store"
    assert response.headers["Content-Security-Policy"] == "default-src 'none'; frame-ancestors 'none'"
    assert response.headers["Referrer-Policy"] == "no-referrer"


def test_every_answer_is_hardened(service: Service, enter: Enter) -> None:
    client = enter(new_user())
    session = begin(client)
    path = f"/api/sessions/{session['id']}"
    for response in (
        client.get(path),
        client.get("/api/sessions/current"),
        client.patch(path, json={"step": "x"}),
        client.post(f"{path}/renew", json={"package": "p"}),
        client.get("/api/sessions/x"),
        client.get("/nowhere"),
        client.delete(path),
        client.post("/api/sessions", content=b"{"),
        client.post("/api/sessions", content=b"x" * 70_000),
        client.post("/api/create-checkout-session", json={}),
        client.get("/healthz"),
        client.get("/readyz"),
        client.get("/metrics"),
        httpx.get(f"{service.stack.url}/openapi.json"),
        httpx.get(f"{service.stack.url}/api/sessions/current"),
        httpx.head(f"{service.stack.url}/healthz"),
    ):
        assert_hardened(response)
        assert "server" not in response.headers


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1:1", "", "a" * 2_000])
def test_a_foreign_host_header_leads_nowhere(service: Service, host: str) -> None:
    """No answer is made of it, so none can be poisoned."""
    response = httpx.post(
        f"{service.stack.url}/api/sessions", json={"package": "p"}, headers={**headers(new_user()), "Host": host}
    )
    assert response.status_code == 202
    assert response.headers["Location"].startswith("/api/tasks/")
    assert not host or host not in response.text + str(response.headers)
