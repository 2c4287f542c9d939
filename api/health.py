"""For probes and operators: live, ready, metrics."""

from datetime import timedelta
from typing import Final, Literal

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel, Field

from api.auth import EVERYONE, service
from api.metrics import exposition
from api.problems import Problem
from api.reading import read
from api.responses import Described, json, problem_responses
from api.state import Parts
from db import queries
from db.engine import lacks_role
from workers.doctor import bounds_of

router = APIRouter(tags=["health"])

LIMITED: Final[Described] = {429: problem_responses("rate_limited", token=False)[429]}  # by address
BEHIND_SECONDS: Final = 10  # a task pending for longer means that nobody executes


class Live(BaseModel):
    """The process answers."""

    status: Literal["ok"]


class Checks(BaseModel):
    """`ok`, or what is wrong."""

    postgres: str
    schema_: str = Field(alias="schema")
    redis: str
    workers: str
    cleanup: str


class Ready(BaseModel):
    """Whether the service can accept, and whether what it accepts is executed soon."""

    status: Literal["ok", "degraded", "unavailable"]
    accept: bool
    execute: bool
    checks: Checks


@router.get("/healthz", response_model=Live, responses=LIMITED)
async def live() -> Response:
    """The process answers."""
    return json({"status": "ok"})


@router.get("/readyz", response_model=Ready, responses={503: {"model": Ready}, **LIMITED})
async def ready(parts: Parts) -> Response:
    """Can it accept (503 if not), and can what is accepted be executed? Each dependency is named."""
    checks = {"postgres": "ok", "schema": "ok", "redis": "ok", "workers": "ok", "cleanup": "ok"}
    try:
        if (await read(parts, EVERYONE, queries.READINESS))[0].schema is None:
            checks["schema"] = "missing: run the migrations"
        else:
            overdue = bounds_of(parts.settings).overdue.total_seconds()
            if await read(parts, EVERYONE, queries.PENDING_FOR_LONG, age=timedelta(seconds=BEHIND_SECONDS)):
                checks["workers"] = f"behind: a task is pending for more than {BEHIND_SECONDS} s"
            oldest = await read(parts, EVERYONE, queries.OLDEST_OVERDUE)
            if oldest and oldest[0][0] > overdue:
                checks["cleanup"] = f"behind: an expired session is not marked for more than {overdue:.0f} s"
    except Exception as error:
        checks |= {"postgres": "unreachable", "schema": "unknown", "workers": "unknown", "cleanup": "unknown"}
        if lacks_role(error.__cause__):
            checks |= {"postgres": "ok", "schema": "missing: run the migrations"}
    if parts.results.deaf:
        checks["redis"] = "unreachable: results are looked up in Postgres, doorbells are rung again"
    accept = checks["postgres"] == checks["schema"] == "ok"
    execute = accept and checks["redis"] == checks["workers"] == "ok"
    fine = execute and checks["cleanup"] == "ok"
    status = "ok" if fine else "degraded" if accept else "unavailable"
    return json({"status": status, "accept": accept, "execute": execute, "checks": checks}, 200 if accept else 503)


async def _door(request: Request) -> None:
    """The setting `METRICS` says who may ask.

    Raises:
        Problem: nobody may, or a service alone.
    """
    match request.app.state.parts.settings.metrics:
        case "off":
            raise Problem("not_found")
        case "service":
            await service(request)


@router.get(
    "/metrics",
    response_class=PlainTextResponse,
    responses=problem_responses("forbidden", "not_found"),
    dependencies=[Depends(_door)],
)
async def metrics(parts: Parts) -> Response:
    """Prometheus. What is in Postgres and Redis is the same whichever process answers."""
    return Response(await exposition(parts), media_type=CONTENT_TYPE_LATEST)
