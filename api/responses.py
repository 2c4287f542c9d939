"""Answers: JSON by orjson, and what the OpenAPI says of problems."""

from collections.abc import Mapping
from typing import Any, Final

import orjson
from fastapi import Response

from api import schemas
from api.problems import KINDS

# Any path may answer these.
ALWAYS: Final = ("token_missing", "rate_limited", "internal_error", "database_unavailable")


def json(
    body: Any, status: int = 200, headers: Mapping[str, str] | None = None, media_type: str = "application/json"
) -> Response:
    """An answer. UUIDs, enums and times are written by orjson itself."""
    return Response(orjson.dumps(body, option=orjson.OPT_UTC_Z), status, dict(headers) if headers else None, media_type)


def problem_responses(*codes: str) -> dict[int | str, dict[str, Any]]:
    """The problems that a path may answer with, by status, for the OpenAPI."""
    by_status: dict[int | str, list[str]] = {}
    for code in sorted({*codes, *ALWAYS}):
        by_status.setdefault(KINDS[code].status, []).append(code)
    return {
        status: {
            "description": ", ".join(f"`{code}`" for code in some),
            "content": {"application/problem+json": {"schema": schemas.Problem.model_json_schema()}},
        }
        for status, some in by_status.items()
    }
