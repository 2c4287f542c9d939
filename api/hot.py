"""Routes for the busiest paths: the same signatures and the same OpenAPI as everywhere, solved at a third of the cost.

FastAPI solves dependencies in general, for each request anew, which takes half of such a request's CPU time, and leads
it through a dozen layers. These endpoints take only a path's parts, one JSON body, and our own few dependencies, so the
way to each is laid at start, and the edge goes it.
"""

import inspect
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from typing import Annotated, Any, get_args, get_origin

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.params import Depends
from fastapi.routing import APIRoute
from pydantic import BaseModel, TypeAdapter, ValidationError
from starlette.requests import ClientDisconnect
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Receive, Scope, Send

Part = Callable[[Request], Awaitable[Any]]
Answers = Mapping[type[Exception], Callable[[Request, Exception], Awaitable[Response]]]

SENT = "checkout_sessions.sent"  # in the scope, from the edge on: the headers by name

# What stands for a dependency here, where it is not called as it is: dependency -> its short way.
SHORT_WAYS: dict[Callable[..., Any], Part] = {}


class HotRoute(APIRoute):
    """A route whose endpoint takes path parts, at most one body model, and dependencies of the request alone."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler that serves requests."""
        endpoint = self.endpoint
        # The body last: of who may not ask, nothing is parsed.
        parameters = sorted(inspect.signature(endpoint, eval_str=True).parameters.values(), key=_takes_body)
        parts = {parameter.name: _part(parameter) for parameter in parameters}

        async def handle(request: Request) -> Response:
            response: Response = await endpoint(**{name: await part(request) for name, part in parts.items()})
            return response

        return handle


class ShortWays:
    """The hot routes, past the framework's layers.

    Args:
        routes: in the order in which they are tried; those that are not hot are left to the framework.
        answers: to the exceptions that an endpoint raises.
    """

    def __init__(self, routes: Iterable[BaseRoute], answers: Answers) -> None:
        self._by_method: dict[str, list[tuple[Callable[[str], Any], ASGIApp]]] = {}
        for route in routes:
            if isinstance(route, HotRoute):
                for method in route.methods or ():
                    ways = self._by_method.setdefault(method, [])
                    ways.append((route.path_regex.match, _way(route.get_route_handler(), answers)))

    def find(self, scope: Scope) -> ASGIApp | None:
        """The way of this request, if it is a hot one."""
        for match, way in self._by_method.get(scope["method"], ()):
            if found := match(scope["path"]):
                scope["path_params"] = found.groupdict()
                return way
        return None


def _way(handle: Callable[[Request], Coroutine[Any, Any, Response]], answers: Answers) -> ASGIApp:
    kinds = tuple(answers)

    async def way(scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive, send)
        try:
            response = await handle(request)
        except kinds as error:
            response = await next(answers[kind] for kind in kinds if isinstance(error, kind))(request, error)
        await response(scope, receive, send)

    return way


def _part(parameter: inspect.Parameter) -> Part:
    name, annotation = parameter.name, parameter.annotation
    if get_origin(annotation) is Annotated:
        for extra in get_args(annotation)[1:]:
            if isinstance(extra, Depends) and extra.dependency is not None:
                return SHORT_WAYS.get(extra.dependency, extra.dependency)
    if annotation is str:
        return _path_part(name)
    if not _takes_body(parameter):
        raise TypeError(f"a hot route cannot take {name}: {annotation}")
    return _body(TypeAdapter(annotation), optional=parameter.default is None)


def _takes_body(parameter: inspect.Parameter) -> bool:
    kinds = (parameter.annotation, *get_args(parameter.annotation))
    return any(isinstance(kind, type) and issubclass(kind, BaseModel) for kind in kinds)


def _path_part(name: str) -> Part:
    async def part(request: Request) -> Any:
        return request.path_params[name]

    return part


async def _read(receive: Receive) -> bytes:
    """The body; the edge bounds it."""
    body: bytes = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        body += message.get("body", b"")
        if not message.get("more_body", False):
            return body


def _body(adapter: TypeAdapter[Any], optional: bool) -> Part:
    async def part(request: Request) -> Any:
        raw = await _read(request.receive)
        if not raw and optional:
            return None
        try:
            return adapter.validate_json(raw)
        except ValidationError as error:
            found = [{**one, "loc": ("body", *one["loc"])} for one in error.errors(include_url=False)]
            raise RequestValidationError(found) from None

    return part
