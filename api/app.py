"""The application: `create_app(settings)`."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final

import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

from api import demo, docs, health, history, legacy, maintenance, navigation, ops, sessions, tasks
from api.cors import Cors
from api.description import describe
from api.edge import Edge
from api.hot import Answers, ShortWays
from api.problems import Problem
from api.settings import ApiSettings, listed
from api.sizes import SIZES
from api.state import State

log = structlog.get_logger("api")

DESCRIPTION = "Keeps a shop's checkout sessions alive. Writes are accepted (202) and executed by Celery workers."

PARTS: Final = (sessions, history, navigation, tasks, maintenance, legacy, health, ops)
ROUTES: Final = [route for part in PARTS for route in part.router.routes if isinstance(route, APIRoute)]
ERRORS_LIMIT: Final = 10  # of a request that are listed


class Service(FastAPI):
    """FastAPI with our edge around it, rather than among its own layers: a hot route passes none of those."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._edge: ASGIApp = super().__call__

    def surround(self, layer: Callable[[ASGIApp], ASGIApp]) -> None:
        """Put a layer around all that is there."""
        self._edge = layer(self._edge)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or the lifespan."""
        scope["app"] = self
        await self._edge(scope, receive, send)


def create_app(settings: ApiSettings) -> FastAPI:
    """The API over the settings' Postgres and Redis; it connects when it starts."""
    SIZES.set(settings)
    parts = State.of(settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with parts.running():
            yield

    app = Service(
        title="checkout-sessions",
        description=DESCRIPTION,
        version="1",
        lifespan=lifespan,
        redirect_slashes=False,
        openapi_url="/openapi.json" if settings.docs else None,
        docs_url=None,
        redoc_url=None,
    )
    app.state.parts = parts
    for part in PARTS:
        app.include_router(part.router)
    ops.mount(app)
    demo.mount(app, settings)
    docs.mount(app)
    answers: Answers = {Problem: _problem, RequestValidationError: _invalid, HTTPException: _http}
    for error, answering in answers.items():
        app.add_exception_handler(error, answering)
    app.surround(partial(Edge, ways=ShortWays(ROUTES, answers)))
    if origins := listed(settings.cors_origins):
        app.surround(partial(Cors, origins=origins))
    describe(app)
    return app


async def _problem(request: Request, problem: Exception) -> Response:
    assert isinstance(problem, Problem)
    return problem.response(request.url.path)


async def _invalid(request: Request, error: Exception) -> Response:
    """What did not fit the schema, without the values: they may be a shopper's."""
    assert isinstance(error, RequestValidationError)
    wrong = error.errors()[:ERRORS_LIMIT]
    if any(one["type"] == "json_invalid" for one in wrong):
        return Problem("malformed_json").response(request.url.path)
    found = [{"where": _where(one["loc"]), "why": one["msg"]} for one in wrong]
    detail = "; ".join(f"{one['where']}: {one['why']}" for one in found)
    return Problem("invalid_request", detail, errors=found).response(request.url.path)


def _where(location: Sequence[Any]) -> str:
    """The names of fields come from outside: any length, and lone surrogates that no UTF-8 can hold."""
    return ".".join(str(part)[:80] for part in location).encode(errors="backslashreplace").decode()


async def _http(request: Request, error: Exception) -> Response:
    """What the framework refuses by itself."""
    assert isinstance(error, HTTPException)
    code = {400: "malformed_json", 404: "not_found", 405: "method_not_allowed", 413: "body_too_large"}
    problem = Problem(code.get(error.status_code, "invalid_request"), headers=error.headers)
    if path := next((route.path for route in ROUTES if route.path_regex.match(request.url.path)), None):
        # The framework names the methods of the path's first route alone.
        methods = {method for route in ROUTES if route.path == path for method in route.methods or ()}
        problem.headers["Allow"] = ", ".join(sorted(methods))
    return problem.response(request.url.path)
