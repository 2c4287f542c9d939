"""Answers: JSON by orjson, and what the OpenAPI says of them."""

from collections.abc import Mapping
from typing import Any, Final

import orjson
from fastapi import Response

from api import schemas
from api.legacy_schemas import OldRefusal
from api.problems import KINDS

Described = dict[int | str, dict[str, Any]]

# Any path may answer these, those with a token these as well, and those with a body the last.
ALWAYS: Final = ("headers_too_large", "body_too_large", "internal_error", "database_unavailable")
TOKEN: Final = ("token_missing", "token_invalid", "token_expired", "keys_unavailable", "rate_limited")
BODY: Final = ("invalid_request", "malformed_json", "unsupported_media_type")

_PROBLEM: Final = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
_HEADERS: Final = {
    "Location": {"description": "Where to poll the task", "schema": {"type": "string"}},
    "Preference-Applied": {"description": "The wait that was granted", "schema": {"type": "string"}},
}


def json(
    body: Any, status: int = 200, headers: Mapping[str, str] | None = None, media_type: str = "application/json"
) -> Response:
    """An answer. UUIDs, enums and times are written by orjson itself."""
    return Response(orjson.dumps(body, option=orjson.OPT_UTC_Z), status, dict(headers) if headers else None, media_type)


def task_responses(waited: int) -> Described:
    """What a task-making write answers with; `waited` is the status of a result that was waited for."""
    return {
        waited: {"model": schemas.Task, "description": "Waited for: the finished task", "headers": _HEADERS},
        202: {"model": schemas.Accepted, "description": "Accepted; poll `Location`", "headers": _HEADERS},
    }


def problem_responses(*codes: str, token: bool = True, old: bool = False) -> Described:
    """The problems that a path may answer with, by status.

    Args:
        codes: beside those that any path may answer with.
        token: whether it asks for one.
        old: whether it is one of the old paths, with the old shape.
    """
    by_status: dict[int | str, list[str]] = {}
    for code in sorted({*codes, *ALWAYS, *(TOKEN if token else ())}):
        by_status.setdefault(KINDS[code].status, []).append(code)
    body: dict[str, Any] = {"model": OldRefusal} if old else {"content": _PROBLEM}
    return {
        status: {"description": ", ".join(f"`{code}`" for code in some), **body} for status, some in by_status.items()
    }
