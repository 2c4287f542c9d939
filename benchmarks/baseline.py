"""What the baselines share with the service: edge, token check, rate limit, problems, uvicorn's settings."""

import os
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from functools import partial
from typing import Any

import uvicorn
from fastapi import APIRouter, FastAPI, Request, Response

from api.app import Service
from api.auth import Verifier
from api.edge import Edge
from api.hot import HotRoute, ShortWays
from api.problems import Problem
from api.protocol import BoundedProtocol
from api.rates import Rates
from api.settings import ApiSettings
from api.state import State
from db.garbage import settle


@dataclass
class Parts:
    """What the dependencies of the service's paths look for, and what a baseline adds."""

    settings: ApiSettings
    verifier: Verifier
    rates: Rates
    clock: Callable[[], float]
    writer: Any = None


Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]


def create_app(settings: ApiSettings, lifespan: Lifespan, create: Callable[..., Any]) -> FastAPI:
    """The service's application with one path, served as the service serves its own.

    Args:
        lifespan: opens and closes what the path needs.
        create: answers POST /api/sessions.
    """
    app = Service(title="baseline", lifespan=lifespan, redirect_slashes=False)
    router = APIRouter(prefix="/api/sessions", route_class=HotRoute)
    router.post("", status_code=201)(create)
    app.include_router(router)
    app.state.parts = Parts(settings, Verifier(settings), Rates(settings), State.clock)
    app.add_exception_handler(Problem, _problem)
    app.surround(partial(Edge, ways=ShortWays(router.routes, {Problem: _problem})))
    return app


async def _problem(_: Request, problem: Exception) -> Response:
    assert isinstance(problem, Problem)
    return problem.response()


def serve(app: FastAPI, settings: ApiSettings) -> None:
    """As `api.__main__` serves the service."""
    settle()
    uvicorn.run(
        app,
        host=settings.api_host,
        port=settings.api_port,
        loop="uvloop",
        http=BoundedProtocol,
        ws="none",
        access_log=False,
        proxy_headers=False,
        log_level="warning",
        server_header=False,
        timeout_keep_alive=30,
    )


def number(name: str, default: int) -> int:
    """A whole number from the environment."""
    return int(os.environ.get(name, default))
