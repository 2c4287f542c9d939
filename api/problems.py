"""Every problem that the API answers with (RFC 9457): its code, status, sentences and what to do next."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal
from uuid import UUID

import orjson
from fastapi import Response

from api.measurements import PROBLEMS
from db.lifecycle import Refusal

Next = Literal["continue", "done", "fix", "recover", "restart", "retry", "sign_in", "wait"]


@dataclass(frozen=True, slots=True)
class Kind:
    """What is the same for each occurrence of a problem.

    Args:
        status: of HTTP.
        title: for developers, the same each time.
        message: a sentence for the shopper.
        next: what the frontend does about it.
        retry_after: seconds after which it is worth another try.
    """

    status: int
    title: str
    message: str
    next: Next
    retry_after: int | None = None


_GENERIC = "Something went wrong on our side. Please try again."
_BUSY = "We are very busy right now. Please try again in a moment."

KINDS: Final[Mapping[str, Kind]] = {
    # Refusals, decided by a worker.
    Refusal.ALREADY_COMPLETED: Kind(409, "The order is complete", "Your order is already complete.", "done"),
    Refusal.PAYMENT_REFERENCE_USED: Kind(
        409,
        "The payment reference completed another session",
        "This payment already belongs to another order. You will not be charged twice.",
        "done",
    ),
    Refusal.SESSION_EXPIRED: Kind(
        409, "The session expired", "Your checkout took a while, we are restoring it for you.", "recover"
    ),
    Refusal.SESSION_NOT_FOUND: Kind(
        404, "No such session", "We could not find your checkout. Please start it again.", "restart"
    ),
    Refusal.SESSION_UNRECOVERABLE: Kind(
        410, "The session cannot be recovered", "We could not restore your checkout. Please start it again.", "restart"
    ),
    Refusal.DATA_TOO_LARGE: Kind(
        413, "The session's data is too large", "Your cart holds more than we can save.", "fix"
    ),
    Refusal.GAVE_UP: Kind(503, "The task was given up", _GENERIC, "retry", retry_after=5),
    # Sessions and tasks.
    "session_not_active": Kind(
        409, "The session is not active", "Your checkout has moved on, we are taking you to it.", "recover"
    ),
    "session_pending": Kind(404, "The session is being made", "Your checkout is almost ready.", "wait", retry_after=1),
    "no_active_session": Kind(404, "The user has no active session", "You have no open checkout.", "restart"),
    "task_not_found": Kind(404, "No such task", "We could not find what you asked for.", "restart"),
    "still_pending": Kind(504, "The result is not there yet", _BUSY, "retry", retry_after=2),
    # Who asks.
    "token_missing": Kind(401, "No bearer token", "Please sign in to go on.", "sign_in"),
    "token_invalid": Kind(401, "The bearer token is not valid", "Please sign in again to go on.", "sign_in"),
    "token_expired": Kind(401, "The bearer token expired", "Please sign in again to go on.", "sign_in"),
    "forbidden": Kind(403, "Not allowed for this role", "You are not allowed to do this.", "sign_in"),
    "origin_refused": Kind(403, "Not allowed from this origin", "You are not allowed to do this.", "fix"),
    # What is asked.
    "invalid_request": Kind(422, "The request is not valid", "Something in the request was not right.", "fix"),
    "malformed_json": Kind(400, "The body is not JSON", "Something in the request was not right.", "fix"),
    "unsupported_media_type": Kind(415, "The body is not JSON", "Something in the request was not right.", "fix"),
    "body_too_large": Kind(413, "The body is too large", "Your cart holds more than we can save.", "fix"),
    "request_timed_out": Kind(408, "The request did not arrive in time", _BUSY, "retry", retry_after=1),
    "headers_too_large": Kind(431, "The headers are too large", "Something in the request was not right.", "fix"),
    "idempotency_key_reused": Kind(
        422, "The idempotency key stands for another request", "Something in the request was not right.", "fix"
    ),
    "not_found": Kind(404, "No such path", "We could not find what you asked for.", "fix"),
    "method_not_allowed": Kind(405, "The path has no such method", "Something in the request was not right.", "fix"),
    # Load and outages.
    "rate_limited": Kind(429, "Too many requests", "That was a little too fast. Please try again.", "retry", 1),
    "too_many_connections": Kind(503, "Too many connections are open", _BUSY, "retry", retry_after=2),
    "backlog_full": Kind(503, "Too many tasks are pending", _BUSY, "retry", retry_after=5),
    "database_unavailable": Kind(503, "Postgres cannot be reached", _BUSY, "retry", retry_after=2),
    "keys_unavailable": Kind(503, "The key set for tokens cannot be fetched", _BUSY, "retry", retry_after=2),
    "internal_error": Kind(500, "A fault of the server", _GENERIC, "retry"),
}

# The paths that the shop's frontend called before; they answer with `{error, code, message, next}`.
OLD_PATHS: Final = frozenset(
    {f"/api/{verb}-checkout-session" for verb in ("create", "validate", "recover", "complete")}
    | {"/api/cleanup-expired-sessions"}
)


class Problem(Exception):
    """Ends a request with a problem.

    Args:
        code: a key of `KINDS`.
        detail: for developers, what it is this time.
        headers: of the answer, beside the kind's `Retry-After`.
        members: further members, e.g. `successor_id` or `task_id`; `next` overrides the kind's.
    """

    def __init__(
        self, code: str, detail: str | None = None, headers: Mapping[str, str] | None = None, **members: Any
    ) -> None:
        super().__init__(code)
        self.code = code
        self.detail = detail
        self.headers = {**retry_header(code), **(headers or {})}
        self.members = members

    def response(self, path: str = "") -> Response:
        """The answer at a path: on the old ones in the old shape."""
        PROBLEMS.labels(self.code).inc()
        if path in OLD_PATHS:
            kind, media_type = KINDS[self.code], "application/json"
            body = {"error": kind.title, "code": self.code, "message": kind.message, "next": kind.next}
        else:
            body, media_type = problem_json(self.code, self.detail, **self.members), "application/problem+json"
        return Response(orjson.dumps(body), KINDS[self.code].status, self.headers, media_type)


def retry_header(code: str) -> dict[str, str]:
    """When to come again, for those problems that pass."""
    seconds = KINDS[code].retry_after
    return {"Retry-After": str(seconds)} if seconds else {}


def problem_json(code: str, detail: str | None = None, **members: Any) -> dict[str, Any]:
    """A problem's body."""
    kind = KINDS[code]
    return {
        "type": f"urn:checkout-sessions:problem:{code}",
        "title": kind.title,
        "status": kind.status,
        "detail": detail or kind.title + ".",
        "code": str(code),
        "message": kind.message,
        "next": kind.next,
        **members,
    }


_DETAILS: Final[Mapping[tuple[Refusal, str], str]] = {
    (Refusal.SESSION_UNRECOVERABLE, "deleted"): "The session was deleted after its retention.",
    (Refusal.SESSION_UNRECOVERABLE, "unknown"): "No such session was ever made for this user.",
}


def refusal_json(refusal: Refusal, reason: str | None, session_id: UUID) -> dict[str, Any]:
    """The problem of a refused task, the same each time that it is read."""
    detail = _DETAILS.get((refusal, reason or ""))
    return problem_json(refusal, detail, session_id=session_id)


def unavailable() -> Problem:
    """Postgres is away. Nothing was accepted; a repeat with the same idempotency key is safe."""
    return Problem("database_unavailable")
