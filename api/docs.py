"""The OpenAPI to look at and to try. Its page takes scripts from a CDN, so it alone is allowed to."""

from typing import Final

from fastapi import FastAPI, Response
from fastapi.openapi.docs import get_swagger_ui_html

CDN: Final = "https://cdn.jsdelivr.net"
POLICY: Final = (
    f"default-src 'none'; script-src {CDN} 'unsafe-inline'; style-src {CDN} 'unsafe-inline'; connect-src 'self'; "
    "img-src 'self' data: https://fastapi.tiangolo.com; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def mount(app: FastAPI) -> None:
    """Serve it at `/docs`, where the settings show the OpenAPI at all."""
    if app.openapi_url is None:
        return
    page = get_swagger_ui_html(openapi_url=app.openapi_url, title=app.title)
    page.headers["Content-Security-Policy"] = POLICY

    async def docs() -> Response:
        return page

    app.add_api_route("/docs", docs, include_in_schema=False)
