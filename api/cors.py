"""Which other origins' pages may ask from a browser: those of the setting, and without one none."""

from typing import Final

from fastapi import Response
from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

from api.edge import HARDENED
from api.problems import Problem

METHODS: Final = ("GET", "POST", "PATCH")
ASKED: Final = ("Authorization", "Content-Type", "Idempotency-Key", "Prefer", "X-Request-ID")
SHOWN: Final = ("Location", "Preference-Applied", "Retry-After", "WWW-Authenticate", "X-Request-ID")
MAX_AGE: Final = 600  # seconds for which a browser need not ask again


class Cors(CORSMiddleware):
    """Outside of everything, so that a page can read every problem. No cookies: a token is all that counts."""

    def __init__(self, app: ASGIApp, origins: list[str]) -> None:
        super().__init__(app, origins, METHODS, ASKED, expose_headers=SHOWN, max_age=MAX_AGE)

    def preflight_response(self, request_headers: Headers) -> Response:
        """Whether a page may ask what it wants to ask."""
        response: Response = super().preflight_response(request_headers)
        if response.status_code != 200:
            refused = Problem("origin_refused").response()
            refused.headers["Vary"] = "Origin"
            response = refused
        for name, value in HARDENED.items():
            response.headers[name.decode()] = value.decode()
        return response
