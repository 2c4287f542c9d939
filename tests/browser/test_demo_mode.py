"""The demo is for development: it does not exist where nobody asked for it."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import httpx
import jwt
import pytest

from api.app import create_app
from api.settings import ApiSettings
from tests.browser.conftest import Shop
from tests.stack import SECRET, headers

PATHS = ("/", "/packages", "/checkout", "/done", "/shop/shop.js", "/client/checkout-sessions.js")
TROUBLES = ("/demo/token", "/demo/expire", "/demo/restart-worker")
SETTINGS = {"database_url": "postgresql://localhost/none", "redis_url": "redis://localhost/0"}


@pytest.mark.parametrize("demo", [False, True])
def test_nothing_of_it_is_there_unless_asked_for(demo: bool) -> None:
    app = create_app(ApiSettings.model_validate({**SETTINGS, "jwt_secret": SECRET, "demo": demo}))
    documented = app.openapi()["paths"]
    assert not [path for path in documented if path in PATHS or path.startswith("/demo")]
    mounted = {getattr(route, "path", "") for route in app.routes}
    assert ({"/", "/packages", "/shop", "/client"} <= mounted) is demo


def test_its_paths_are_unknown_without_it() -> None:
    app = create_app(ApiSettings.model_validate({**SETTINGS, "jwt_secret": SECRET}))

    async def ask() -> dict[str, int]:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://api") as client:
            pages = {path: (await client.get(path)).status_code for path in PATHS}
            troubles = {path: (await client.post(path, json={"user_id": "demo-1"})).status_code for path in TROUBLES}
            return pages | troubles

    with ThreadPoolExecutor() as threads:  # Playwright's event loop occupies this one
        told = threads.submit(lambda: asyncio.run(ask())).result()
    assert told == dict.fromkeys((*PATHS, *TROUBLES), 404)


def test_it_needs_a_secret_to_sign_with() -> None:
    settings = {**SETTINGS, "jwt_jwks_url": "https://id.example/jwks.json", "demo": True}
    with pytest.raises(ValueError, match="DEMO signs its visitors' tokens and needs JWT_SECRET"):
        ApiSettings.model_validate(settings)


def test_its_tokens_are_for_demo_users_alone(shop: Shop) -> None:
    shop.mend()
    with httpx.Client(base_url=shop.stack.url) as client:
        token = client.post("/demo/token", json={"user_id": "demo-1"}).json()["token"]
        claims = jwt.decode(token, SECRET, ["HS256"])
        assert (claims["sub"], claims["role"]) == ("demo-1", "authenticated")
        for body in ({"user_id": "7d9f6c1e"}, {"user_id": "demo-1", "role": "service_role"}, {}):
            assert client.post("/demo/token", json=body).status_code == 422, body
        for path in TROUBLES[1:]:
            assert client.post(path).status_code == 401, path


def test_its_pages_run_their_own_scripts_only(shop: Shop) -> None:
    shop.mend()
    with httpx.Client(base_url=shop.stack.url) as client:
        for path in PATHS:
            answer = client.get(path)
            assert answer.status_code == 200, path
            assert "default-src 'none'; script-src 'self'" in answer.headers["content-security-policy"], path
        assert client.get("/shop/../package.json").status_code == 404
        assert client.get("/client/%2e%2e/package.json").status_code == 404
        assert client.post("/demo/expire", headers=headers("demo-nobody")).json() == {"expired": 0}
