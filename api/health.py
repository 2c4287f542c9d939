"""For probes and operators: live, ready, metrics."""

import asyncio
import time
from datetime import UTC, datetime, timedelta
from typing import Final

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Gauge, generate_latest

from api.reading import read
from api.responses import json
from api.state import Parts
from db import figures, queries

router = APIRouter(tags=["health"])

BEHIND_SECONDS: Final = 10  # a task pending for longer means that nobody executes
RATES_DAYS: Final = 30  # days that the two rates look back
SCRAPE_SECONDS: Final = 5  # figures are counted this often at most, however many scrape


@router.get("/healthz")
async def live() -> Response:
    """The process answers."""
    return json({"status": "ok"})


@router.get("/readyz")
async def ready(request: Request, parts: Parts) -> Response:
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


@router.get("/metrics")
async def metrics(parts: Parts) -> Response:
    """Prometheus. Counted from Postgres, so the same whichever process answers."""
    async with _Cache.lock:
        if time.monotonic() >= _Cache.until:
            _Cache.body = await _metrics(parts)
            _Cache.until = time.monotonic() + SCRAPE_SECONDS
    return Response(_Cache.body, media_type=CONTENT_TYPE_LATEST)


async def _metrics(parts: Parts) -> bytes:
    since = (datetime.now(UTC) - timedelta(days=RATES_DAYS)).date()
    async with parts.reader.connect() as connection:
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
