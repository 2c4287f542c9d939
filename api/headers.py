"""What task-making writes say in their headers."""

import re
from dataclasses import dataclass
from typing import Annotated, Final

from fastapi import Depends, Header, Request
from fastapi.exceptions import RequestValidationError

from api.hot import SENT, SHORT_WAYS
from api.sizes import SIZES

_WAIT: Final = re.compile(r"(?:^|[,;\s])wait\s*=\s*\"?(\d{1,6})\"?(?=$|[,;\s])", re.IGNORECASE)

Prefer = Annotated[
    str | None, Header(description="`wait=N`: wait up to N seconds for the result, at most as long as a poll may")
]
_KEY: Final = re.compile(r"[\x21-\x7e]([\x20-\x7e]{0,253}[\x21-\x7e])?")
KEY_RULE: Final = "1 to 255 printable ASCII characters, without space at either end"
IdempotencyKey = Annotated[
    str | None,
    Header(
        min_length=1,
        max_length=255,
        pattern=r"^[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?$",
        description="Repeats of a request under its key, for at least 24 h, give the same task",
    ),
]


@dataclass(frozen=True, slots=True)
class AskHeaders:
    """Args:
    wait: seconds to wait for the result.
    idempotency_key: under which repeats give the same task.
    request_id: joins the log lines of API and worker.
    """

    wait: int
    idempotency_key: str | None
    request_id: str | None


def preferred_wait(prefer: str | None) -> int:
    """Seconds of `Prefer: wait=N` (RFC 7240); what cannot be honoured is ignored, more than the limit is the limit."""
    match = _WAIT.search(prefer or "")
    return min(int(match[1]), SIZES.wait) if match else 0


async def _ask_headers(request: Request, prefer: Prefer = None, idempotency_key: IdempotencyKey = None) -> AskHeaders:
    return AskHeaders(preferred_wait(prefer), idempotency_key, request.scope.get("request_id"))


async def _hot_ask_headers(request: Request) -> AskHeaders:
    """The same, without FastAPI's help."""
    sent = request.scope[SENT]
    key = sent[b"idempotency-key"].decode("latin-1") if b"idempotency-key" in sent else None
    if key is not None and not _KEY.fullmatch(key):
        wrong = {"type": "string_pattern_mismatch", "loc": ("header", "idempotency-key"), "msg": KEY_RULE}
        raise RequestValidationError([wrong])
    prefer = sent.get(b"prefer")
    return AskHeaders(preferred_wait(prefer.decode("latin-1")) if prefer else 0, key, request.scope.get("request_id"))


SHORT_WAYS[_ask_headers] = _hot_ask_headers


Asking = Annotated[AskHeaders, Depends(_ask_headers)]
