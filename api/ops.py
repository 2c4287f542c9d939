"""/ops: what operators watch, on one page for those who have no Grafana. The page is public, its figures are not."""

from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from fastapi import APIRouter, FastAPI, Response
from fastapi.responses import FileResponse
from pydantic import BaseModel
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from api.auth import Service
from api.metrics import HEARD_SECONDS
from api.responses import json, problem_responses
from api.state import Parts

WEB: Final = Path(__file__).resolve().parent.parent / "web" / "ops"
HEADERS: Final = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}

router = APIRouter(tags=["health"])


class Overview(BaseModel):
    """What was seen just now; null is what could not be seen."""

    postgres: bool
    redis: bool
    figures: dict[str, float | None] | None
    days: list[dict[str, Any]]
    tables: dict[str, Any] | None
    broker: dict[str, Any] | None
    pools: list[dict[str, Any]]
    waiting: int
    samples: list[dict[str, Any]]
    heard_seconds: int
    flower_port: int


@router.get("/api/ops", response_model=Overview, responses=problem_responses("forbidden"))
async def overview(parts: Parts, _: Service) -> Response:
    """The live figures of /ops, and the last hour of this process's looks."""
    look = await parts.watch.look()
    figures = look.figures
    return json(
        {
            "postgres": look.postgres,
            "redis": look.broker is not None,
            "figures": figures
            and {
                "active_sessions": figures.active_sessions,
                "completion_rate": figures.completion_rate,
                "recovery_success_rate": figures.recovery_success_rate,
                "cleanups_24h": figures.cleanups_24h,
                "age_seconds": look.figures_seconds,
            },
            "days": [{"day": day, **asdict(counts)} for day, counts in sorted(figures.days.items())] if figures else [],
            "tables": look.tables and asdict(look.tables),
            "broker": look.broker and asdict(look.broker),
            "pools": [{"name": name, "in_use": used, "size": size} for name, (used, size) in parts.pools().items()],
            "waiting": parts.results.waiting,
            "samples": [asdict(sample) for sample in parts.watch.samples],
            "heard_seconds": HEARD_SECONDS,
            "flower_port": parts.settings.flower_port,
        }
    )


def mount(app: FastAPI) -> None:
    """Serve the page."""
    app.add_api_route("/ops", _page, include_in_schema=False)
    app.mount("/ops", _Files(directory=WEB))


async def _page() -> Response:
    return FileResponse(WEB / "index.html", headers=HEADERS)


class _Files(StaticFiles):
    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers.update(HEADERS)
        return response
