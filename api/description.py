"""What FastAPI cannot know when it writes the OpenAPI."""

from typing import Any, Final

from fastapi import FastAPI

from api.schemas import JSON_SCHEMA
from api.sizes import SIZES

BEARER: Final = {
    "type": "http",
    "scheme": "bearer",
    "bearerFormat": "JWT",
    "description": "`sub` is the user, `role` is `authenticated` or `service_role`",
}
# FastAPI's own answer to what does not fit; here problems say it, and paths take any text for an id.
FOREIGN: Final = ("HTTPValidationError", "ValidationError")


def describe(app: FastAPI) -> None:
    """Complete the app's OpenAPI, once it is asked for."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _completed(generate())
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _completed(document: dict[str, Any]) -> dict[str, Any]:
    bounds = f"nested at most {SIZES.data_depth} deep, of at most {SIZES.data_values} names and values in all."
    document["components"]["schemas"]["Json"] = {**JSON_SCHEMA, "description": f"Any JSON, {bounds}"}
    document["components"]["securitySchemes"] = {"bearer": BEARER}
    for name in FOREIGN:
        document["components"]["schemas"].pop(name, None)
    for path, operations in document["paths"].items():
        for operation in operations.values():
            if path.startswith("/api/"):
                operation["security"] = [{"bearer": []}]
            for parameter in operation.get("parameters", ()):
                if parameter["name"] == "wait":
                    parameter["schema"] |= {"minimum": 0, "maximum": SIZES.wait}
            if FOREIGN[0] in str(operation["responses"].get("422")):
                del operation["responses"]["422"]
    return document
