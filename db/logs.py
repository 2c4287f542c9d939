"""Logs: one JSON line an event on standard error, in colour on a terminal. Ids and figures, never a cart or a token.

What happens all the time takes the short way, `each` and `operation`: it costs 3 microseconds a line, a fourth of what
structlog's way costs. Libraries' lines come through the standard library's logging, in the same shape.
"""

import logging
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from select import PIPE_BUF
from types import MappingProxyType, TracebackType
from typing import Any, Self

import orjson
import psycopg
import structlog
from sqlalchemy.exc import SQLAlchemyError

log = structlog.get_logger("database")

FAULTS = (psycopg.Error, SQLAlchemyError, OSError)
QUIET = ("celery.worker.strategy", "celery.app.trace")  # our own lines say the same, with ids

_bound: ContextVar[Mapping[str, str]] = ContextVar("bound", default=MappingProxyType({}))
_write: Callable[[list[bytes]], None] | None = None  # takes JSON lines; None while `each` goes structlog's way


def configure(name: str = "INFO") -> None:
    """Set up structlog and the standard library's logging, from the level of this name on."""
    global _write
    level = logging.getLevelNamesMapping()[name]
    terminal = sys.stderr.isatty()
    console = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
    shared: list[structlog.typing.Processor] = [
        _merge,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer: structlog.typing.Processor = console if terminal else structlog.processors.JSONRenderer(serializer=_json)
    tail: list[structlog.typing.Processor] = [renderer] if terminal else [_exceptions, _no_values, renderer]
    structlog.configure(
        processors=[*shared, *tail],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr)
        if terminal
        else structlog.BytesLoggerFactory(sys.stderr.buffer),
        cache_logger_on_first_use=True,
    )
    _write = None if terminal or level > logging.INFO else _put
    handler = logging.StreamHandler(sys.stderr)
    foreign = [structlog.stdlib.add_logger_name, *shared]
    remove = structlog.stdlib.ProcessorFormatter.remove_processors_meta
    text = console if terminal else structlog.processors.JSONRenderer(serializer=_text)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=foreign,
            processors=[remove, text] if terminal else [remove, _exceptions, _no_values, text],
        )
    )
    logging.captureWarnings(True)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for quiet in QUIET:
        logging.getLogger(quiet).setLevel(max(level, logging.WARNING))


def bind(**ids: str) -> None:
    """Name what all further lines of this context belong to: a request, or a Celery task."""
    _bound.set(ids)


def each(event: str, entries: Iterable[Mapping[str, Any]]) -> None:
    """Log one event of many things, a line each, written together."""
    if _write is None:
        for entry in entries:
            log.info(event, **entry)
        return
    head = {"event": event, "level": "info", "timestamp": datetime.now(UTC), **_bound.get()}
    _write([orjson.dumps({**head, **entry}, str, _LINE) for entry in entries])


class operation:  # noqa: N801 - reads as a verb: `with operation("accept") as done: ...; done.rows = 3`
    """Logs one operation on the database: its name, its rows, its time, and how it failed, if it did; no values."""

    __slots__ = ("_began", "_ids", "_name", "rows")

    def __init__(self, name: str, **ids: Any) -> None:
        self._name = name
        self._ids = ids
        self.rows: int | None = None

    def __enter__(self) -> Self:
        self._began = time.perf_counter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        ms = round((time.perf_counter() - self._began) * 1000, 1)
        entry = {"operation": self._name, "rows": self.rows, "ms": ms, **self._ids}
        if isinstance(error, FAULTS):
            log.warning("database operation failed", **entry, error=repr(error))
        else:  # a refusal is no failure of the database
            each("database operation", (entry,))


# Without local variables: they hold carts.
_exceptions = structlog.processors.ExceptionRenderer(structlog.tracebacks.ExceptionDictTransformer(show_locals=False))
_LINE = orjson.OPT_UTC_Z | orjson.OPT_NON_STR_KEYS | orjson.OPT_APPEND_NEWLINE


def _merge(_: Any, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    return {**_bound.get(), **event}


def _no_values(_: Any, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """The first line of what an error says: below it Postgres cites the row, and SQLAlchemy the parameters."""
    if isinstance(error := event.get("error"), str):
        event["error"] = error.partition("\\n")[0]
    for one in event.get("exception") or ():
        one["exc_value"] = one["exc_value"].partition("\n")[0]
    return event


def _put(lines: list[bytes]) -> None:
    """As many at once as a pipe keeps together: other processes write to it as well. Safe in a signal handler."""
    together = b""
    for line in lines:
        if len(together) + len(line) > PIPE_BUF:
            os.write(2, together)
            together = b""
        together += line
    os.write(2, together)


def _json(event: Any, **_: Any) -> bytes:
    return orjson.dumps(event, default=str, option=orjson.OPT_NON_STR_KEYS)


def _text(event: Any, **_: Any) -> str:
    return _json(event).decode()
