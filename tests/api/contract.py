"""What every answer must keep, whoever asks: the OpenAPI says so, and each problem is one of api/problems.py."""

import itertools
import re
from dataclasses import dataclass, field
from typing import Any

import httpx
import schemathesis

from api.app import create_app
from api.problems import KINDS, OLD_PATHS
from api.settings import ApiSettings
from tests.stack import SECRET

SESSION = {
    "id", "user_id", "status", "valid", "next", "package", "step", "data", "origin", "previous_session_id",
    "successor_id", "payment_reference", "seconds_left", "created_at", "updated_at", "expires_at", "completed_at",
}  # fmt: skip
TASK = {"id", "kind", "state", "session_id", "result", "error", "accepted_at", "finished_at"}
ACCEPTED = {"task_id", "session_id", "state"}
PROBLEM = {"type", "title", "status", "detail", "code", "message", "next"}
OLD_REFUSAL = {"error", "code", "message", "next"}

_numbers = itertools.count(1)


def new_user() -> str:
    """A user whom no other test knows."""
    return f"shopper-{next(_numbers)}"


def openapi() -> dict[str, Any]:
    """The service's description of itself, without a server."""
    settings = ApiSettings(
        database_url="postgresql://localhost/none",  # type: ignore[arg-type]
        redis_url="redis://localhost",  # type: ignore[arg-type]
        jwt_secret=SECRET,  # type: ignore[arg-type]
    )
    return create_app(settings).openapi()


@dataclass
class Contract:
    """Checks each answer that a test's client receives, and remembers it."""

    raw: dict[str, Any] = field(default_factory=openapi)
    codes: set[str] = field(default_factory=set)
    seen: set[tuple[str, str, int]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.schema = schemathesis.openapi.from_dict(self.raw)
        self.paths = {path: re.compile(re.sub(r"\{\w+\}", "[^/]+", path)) for path in self.raw["paths"]}

    def template_of(self, path: str) -> str | None:
        """The OpenAPI's path that a URL's path belongs to."""
        found = [template for template, pattern in self.paths.items() if pattern.fullmatch(path)]
        return min(found, key=lambda template: template.count("{")) if found else None

    def check(self, response: httpx.Response) -> None:
        """Hold one answer against the contract."""
        response.read()
        self.checked(response)

    async def acheck(self, response: httpx.Response) -> None:
        """`check` for an asynchronous client."""
        await response.aread()
        self.checked(response)

    def checked(self, response: httpx.Response) -> None:
        """Hold an answer that was read against the contract."""
        assert response.headers["X-Request-ID"], "every answer is named"
        request = response.request
        template = self.template_of(request.url.path)
        if response.status_code >= 400 and request.url.path != "/readyz":
            self._check_problem(response, old=request.url.path in OLD_PATHS)
        operation = self.raw["paths"].get(template, {}).get(request.method.lower()) if template else None
        if template is None or operation is None:
            assert response.status_code in (404, 405, 307), f"{request.method} {request.url.path} is not described"
            return
        self.seen.add((request.method, template, response.status_code))
        where = f"{request.method} {template} {response.status_code}"
        described = operation["responses"].get(str(response.status_code))
        assert described is not None, f"{where} is not in the OpenAPI: {response.text}"
        media_type = response.headers["Content-Type"].partition(";")[0]
        assert media_type in described["content"], f"{where} is not described as {media_type}"
        read = httpx.Response(
            response.status_code,
            headers={"Content-Type": response.headers["Content-Type"]},
            content=response.content,
            request=httpx.Request(request.method, request.url),
        )
        read.elapsed = response.elapsed
        self.schema[template][request.method].validate_response(read)

    def _check_problem(self, response: httpx.Response, old: bool) -> None:
        body = response.json()
        assert body.get("code") in KINDS, response.text
        kind = KINDS[body["code"]]
        self.codes.add(body["code"])
        assert response.status_code == kind.status
        assert body.get("message") == kind.message
        if old:
            assert response.headers["Content-Type"] == "application/json"
            assert body == {"error": kind.title, "code": body["code"], "message": kind.message, "next": kind.next}
        else:
            assert response.headers["Content-Type"] == "application/problem+json"
            assert body.keys() >= PROBLEM
            assert body["type"] == f"urn:checkout-sessions:problem:{body['code']}"
            assert body["title"] == kind.title
            assert body["status"] == kind.status
        if kind.status in (429, 503, 504):
            assert int(response.headers["Retry-After"]) >= 1, "tells when to come again"
        if kind.status == 401:
            assert response.headers["WWW-Authenticate"].startswith("Bearer")


def assert_problem(response: httpx.Response, code: str, next_step: str | None = None, **members: Any) -> dict[str, Any]:
    """The answer is this problem, with exactly these members beside those that every problem has."""
    body: dict[str, Any] = response.json()
    assert body.get("code") == code, response.text
    assert body["next"] == (next_step or KINDS[code].next)
    assert body.keys() == PROBLEM | members.keys()
    assert {name: body[name] for name in members} == members
    return body


def assert_old_refusal(response: httpx.Response, code: str) -> None:
    """The answer of an old path is this problem, in the old shape."""
    assert response.json().get("code") == code, response.text
    assert response.json().keys() == OLD_REFUSAL
