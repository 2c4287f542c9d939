"""Logs: one JSON line an event on standard error, in colour on a terminal. Ids and figures, never a cart or a token."""

import logging
import sys
from typing import Any

import orjson
import structlog

# A worker logs each task it finishes, so its own lines take the short way: no standard logging in between, which costs
# ten times as much. Libraries' lines come through it, in the same shape.
QUIET = ("celery.worker.strategy", "celery.app.trace")  # our own lines say the same, with ids


def configure(name: str = "INFO") -> None:
    """Set up structlog and the standard library's logging, from the level of this name on."""
    level = logging.getLevelNamesMapping()[name]
    terminal = sys.stderr.isatty()
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer() if terminal else structlog.processors.JSONRenderer(serializer=_json)
    )
    tail: list[structlog.typing.Processor] = [renderer] if terminal else [_exceptions, renderer]
    structlog.configure(
        processors=[*shared, *tail],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr)
        if terminal
        else structlog.BytesLoggerFactory(sys.stderr.buffer),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    foreign = [structlog.stdlib.add_logger_name, *shared]
    remove = structlog.stdlib.ProcessorFormatter.remove_processors_meta
    text = structlog.dev.ConsoleRenderer() if terminal else structlog.processors.JSONRenderer(serializer=_text)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=foreign, processors=[remove, text] if terminal else [remove, _exceptions, text]
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for quiet in QUIET:
        logging.getLogger(quiet).setLevel(max(level, logging.WARNING))


# Without local variables: they hold carts.
_exceptions = structlog.processors.ExceptionRenderer(structlog.tracebacks.ExceptionDictTransformer(show_locals=False))


def _json(event: Any, **_: Any) -> bytes:
    return orjson.dumps(event, default=str, option=orjson.OPT_NON_STR_KEYS)


def _text(event: Any, **_: Any) -> str:
    return _json(event).decode()
