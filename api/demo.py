"""The demo shop and the buttons that make trouble in it. Mounted with DEMO=1 only, which is for development."""

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Final

import jwt
from fastapi import APIRouter, FastAPI, Response
from fastapi.responses import FileResponse
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import func, update
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from api.auth import Authenticated
from api.responses import json
from api.settings import ApiSettings
from api.state import Parts
from db.lifecycle import Status
from db.models import CheckoutSession
from workers.configuration import create_app

WEB: Final = Path(__file__).resolve().parent.parent / "web"
STEPS: Final = ("/", "/packages", "/checkout", "/done")
HEADERS: Final = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}

router = APIRouter(prefix="/demo", include_in_schema=False)


def mount(app: FastAPI, settings: ApiSettings) -> None:
    """Serve the shop at `/`, where the settings say so."""
    if not settings.demo:
        return
    app.include_router(router)
    for path in STEPS:
        app.add_api_route(path, _page, include_in_schema=False)
    for folder in ("shop", "client"):
        app.mount(f"/{folder}", _Files(directory=WEB / folder))


async def _page() -> Response:
    return FileResponse(WEB / "shop" / "index.html", headers=HEADERS)


class _Files(StaticFiles):
    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers.update(HEADERS)
        return response


class Visitor(BaseModel):
    """Who wants a token. Real shoppers' ids are out of reach, even where DEMO is set by mistake."""

    model_config = ConfigDict(extra="forbid", strict=True)

    user_id: Annotated[str, Field(pattern=r"^demo-[0-9a-z-]{1,64}$")]
    lifetime: Annotated[int, Field(ge=-3_600, le=3_600)] = 600  # seconds; below zero it has expired already


@router.post("/token")
async def token(visitor: Visitor, parts: Parts) -> Response:
    """A token as the shop's sign-in would give it."""
    settings = parts.settings
    assert settings.jwt_secret is not None  # the settings see to it
    expires_at = datetime.now(UTC) + timedelta(seconds=visitor.lifetime)
    claims: dict[str, Any] = {"sub": visitor.user_id, "role": "authenticated", "exp": expires_at}
    if settings.jwt_audience:
        claims["aud"] = settings.jwt_audience
    return json({"token": jwt.encode(claims, settings.jwt_secret.get_secret_value(), "HS256")})


@router.post("/expire")
async def expire(parts: Parts, principal: Authenticated) -> Response:
    """A night passes for the visitor's active session."""
    night = (
        update(CheckoutSession)
        .where(CheckoutSession.user_id == principal.user_id, CheckoutSession.status == Status.ACTIVE)
        .values(created_at=func.now() - parts.settings.limits.ttl, expires_at=func.now())
    )
    async with parts.engines[None].begin() as connection:
        rows = (await connection.execute(night)).rowcount
    return json({"expired": rows})


@router.post("/restart-worker")
async def restart_worker(parts: Parts, _: Authenticated) -> Response:
    """Stop the workers of sessions; whoever runs them starts them again."""
    await asyncio.to_thread(_stop_workers, parts.settings)
    return json({"restarting": True}, 202)


def _stop_workers(settings: ApiSettings) -> None:
    with create_app(settings, {"socket_timeout": 2, "socket_connect_timeout": 2}) as celery:
        # celery-types takes the matcher for a function; it is the name of one.
        celery.control.broadcast("shutdown", pattern="sessions*", matcher="glob")  # type: ignore[arg-type]
