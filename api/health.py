"""For probes and operators: live, ready, metrics."""

import asyncio
import time
from datetime import UTC, date, datetime, timedelta
from typing import Final, Literal

from fastapi import APIRouter, Response
from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Gauge, generate_latest
from pydantic import BaseModel, Field

from api.reading import in_time, read
from api.responses import json, problem_responses
from api.state import Parts
from db import figures, queries
from workers.doctor import bounds_of

router = APIRouter(tags=["health"])

BEHIND_SECONDS: Final = 10  # a task pending for longer means that nobody executes
RATES_DAYS: Final = 30  # days that the two rates look back
SCRAPE_SECONDS: Final = 5  # figures are counted this often at most, however many scrape
COUNT_SECONDS: Final = 5  # for counting them: a scrape is in less of a hurry than a shopper


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


@router.get("/healthz", response_model=Live)
async def live() -> Response:
    """The process answers."""
    return json({"status": "ok"})


@router.get("/readyz", response_model=Ready, responses={503: {"model": Ready}})
async def ready(parts: Parts) -> Response:
    """Can it accept (503 if not), and can what is accepted be executed? Each dependency is named."""
    checks = {"postgres": "ok", "schema": "ok", "redis": "ok", "workers": "ok", "cleanup": "ok"}
    try:
        row = (await read(parts, queries.READINESS)).one()
        if row.schema is None:
            checks["schema"] = "missing: run the migrations"
        else:
            overdue = bounds_of(parts.settings).overdue.total_seconds()
            behind = await read(parts, queries.PENDING_FOR_LONG, age=timedelta(seconds=BEHIND_SECONDS))
            if behind.first():
                checks["workers"] = f"behind: a task is pending for more than {BEHIND_SECONDS} s"
            oldest = (await read(parts, queries.OLDEST_OVERDUE)).scalar_one_or_none()
            if oldest is not None and oldest > overdue:
                checks["cleanup"] = f"behind: an expired session is not marked for more than {overdue:.0f} s"
    except Exception:
        checks |= {"postgres": "unreachable", "schema": "unknown", "workers": "unknown", "cleanup": "unknown"}
    if parts.results.deaf:
        checks["redis"] = "unreachable: results are looked up in Postgres, doorbells are rung again"
    accept = checks["postgres"] == checks["schema"] == "ok"
    execute = accept and checks["redis"] == checks["workers"] == "ok"
    fine = execute and checks["cleanup"] == "ok"
    status = "ok" if fine else "degraded" if accept else "unavailable"
    return json({"status": status, "accept": accept, "execute": execute, "checks": checks}, 200 if accept else 503)


class _Cache:
    body: bytes = b""
    until: float = 0.0
    lock = asyncio.Lock()


@router.get("/metrics", response_class=PlainTextResponse, responses=problem_responses(token=False))
async def metrics(parts: Parts) -> Response:
    """Prometheus. Counted from Postgres, so the same whichever process answers."""
    async with _Cache.lock:
        if time.monotonic() >= _Cache.until:
            _Cache.body = await _metrics(parts)
            _Cache.until = time.monotonic() + SCRAPE_SECONDS
    return Response(_Cache.body, media_type=CONTENT_TYPE_LATEST)


async def _figures(parts: Parts, since: date) -> figures.Figures:
    async with parts.reader.connect() as connection:
        return await figures.figures(connection, since)


async def _metrics(parts: Parts) -> bytes:
    since = (datetime.now(UTC) - timedelta(days=RATES_DAYS)).date()
    now = await in_time(_figures(parts, since), COUNT_SECONDS)
    registry = CollectorRegistry()

    def gauge(name: str, text: str, value: float | None) -> None:
        if value is not None:
            Gauge(f"checkout_sessions_{name}", text, registry=registry).set(value)

    gauge("active", "Sessions that are active now", now.active_sessions)
    gauge("completion_ratio", "Lines completed of those begun in the last 30 days", now.completion_rate)
    gauge("recovery_success_ratio", "Recoveries that gave a session, last 30 days", now.recovery_success_rate)
    gauge("cleanup_runs_24h", "Successful runs of expiry and deletion in 24 hours", now.cleanups_24h)
    gauge("pending_tasks", "Accepted tasks that are not finished", now.pending)
    gauge("oldest_pending_task_seconds", "Age of the oldest pending task", now.oldest_pending_seconds)
    gauge("oldest_overdue_session_seconds", "Age of the oldest expiry not marked", now.oldest_overdue_seconds)
    gauge("last_expiry_run_seconds", "Since the last successful expiry; -1 if never", now.last_expiry_seconds)
    gauge("given_up_tasks_24h", "Tasks given up in 24 hours, each a fault: `make retry`", now.given_up_24h)
    gauge("invariant_breaches", "Rows that the doctor's last run found broken", now.invariant_breaches)
    gauge("waiting_requests", "Tasks that clients of this process wait for", parts.results.waiting)
    return generate_latest(registry)
