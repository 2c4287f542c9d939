"""For probes and operators: live, ready, metrics."""

import asyncio
import time
from datetime import UTC, datetime, timedelta
from typing import Final, Literal

from fastapi import APIRouter, Response
from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Gauge, generate_latest
from pydantic import BaseModel, Field

from api.reading import in_time, read
from api.responses import json, problem_responses
from api.state import Parts
from db import figures, queries

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
    checks = {"postgres": "ok", "schema": "ok", "redis": "ok", "workers": "ok"}
    try:
        row = (await read(parts, queries.READINESS)).one()
        if row.schema is None:
            checks["schema"] = "missing: run the migrations"
        elif await _behind(parts):
            checks["workers"] = f"behind: a task is pending for more than {BEHIND_SECONDS} s"
    except Exception:
        checks |= {"postgres": "unreachable", "schema": "unknown", "workers": "unknown"}
    if parts.results.deaf:
        checks["redis"] = "unreachable: results are looked up in Postgres, doorbells are rung again"
    accept = checks["postgres"] == checks["schema"] == "ok"
    execute = accept and checks["redis"] == checks["workers"] == "ok"
    status = "ok" if execute else "degraded" if accept else "unavailable"
    return json({"status": status, "accept": accept, "execute": execute, "checks": checks}, 200 if accept else 503)


async def _behind(parts: Parts) -> bool:
    oldest = (await read(parts, queries.OLDEST_PENDING)).scalar_one_or_none()
    return oldest is not None and oldest > BEHIND_SECONDS


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


async def _metrics(parts: Parts) -> bytes:
    since = (datetime.now(UTC) - timedelta(days=RATES_DAYS)).date()
    async with in_time(COUNT_SECONDS), parts.reader.connect() as connection:
        now = await figures.figures(connection, since)
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
    gauge("invariant_breaches", "Rows that the doctor's last run found broken", now.invariant_breaches)
    gauge("waiting_requests", "Tasks that clients of this process wait for", parts.results.waiting)
    return generate_latest(registry)
