"""Stops a process between two steps: `python -m tests.chaos.crash FOLDER MODULE ARGUMENT ...`.

Runs the module with its steps wrapped from outside. Whoever comes by the point that is armed in the folder disarms it
and dies by SIGKILL: the process alone, or its whole group.
"""

import json
import os
import runpy
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

WORKER_POINTS = (
    "at the door",  # Celery knows nothing of the message, it was taken at the door
    "received",  # the message is there, nothing is read
    "locked",  # the users' tasks are locked
    "loaded",  # and their sessions
    "decided",  # nothing is written
    "written",  # everything is written, nothing is committed
    "committed",  # nobody is told
    "told",  # the batch is done
    "finished",  # Celery has not acknowledged
)
API_POINTS = (
    "accepting",  # nothing is written
    "accepted",  # committed, neither rung nor answered
    "rung",  # rung, hardly answered
    "answering",  # committed and about to answer
)


class Points:
    """The folder in which a test arms a point."""

    def __init__(self, folder: Path) -> None:
        self.armed = folder / "armed"
        self.fired = folder / "fired"

    def arm(self, point: str, whole: bool) -> None:
        """The next process that comes by the point dies; `whole`: with its group."""
        self.fired.unlink(missing_ok=True)
        draft = self.armed.with_suffix(".draft")
        draft.write_text(json.dumps({"point": point, "whole": whole}))
        draft.rename(self.armed)

    def pass_by(self, point: str) -> None:
        """Die here, if this is the one."""
        with suppress(FileNotFoundError, json.JSONDecodeError):
            armed = json.loads(self.armed.read_text())
            if armed["point"] != point:
                return
            self.armed.rename(self.fired)
            if armed["whole"]:
                os.killpg(os.getpgrp(), signal.SIGKILL)
            os.kill(os.getpid(), signal.SIGKILL)


def wrap_worker(points: Points) -> None:
    """Put the worker's points between its steps."""
    import psycopg

    from workers import door, execution

    def after(point: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*arguments: Any, **named: Any) -> Any:
            result = function(*arguments, **named)
            points.pass_by(point)
            return result

        return wrapped

    def before(point: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*arguments: Any, **named: Any) -> Any:
            points.pass_by(point)
            return function(*arguments, **named)

        return wrapped

    commit = psycopg.Connection.commit

    def committing(self: Any) -> None:
        self.execute("SELECT 1").fetchone()  # what was sent before has arrived
        points.pass_by("written")
        commit(self)
        points.pass_by("committed")

    door.Door._answer = before("at the door", door.Door._answer)  # type: ignore[method-assign]
    executor = execution.Executor
    executor.execute = before("received", after("finished", executor.execute))  # type: ignore[method-assign]
    execution.take = after("locked", execution.take)
    execution.load = after("loaded", execution.load)
    executor._store = before("decided", executor._store)  # type: ignore[method-assign]
    executor._told = after("told", executor._told)  # type: ignore[method-assign]
    psycopg.Connection.commit = committing  # type: ignore[method-assign]


def wrap_api(points: Points) -> None:
    """Put the API's points between accept, doorbell and answer."""
    import psycopg
    import redis.asyncio

    from api import sessions
    from db import statements

    execute = psycopg.AsyncCursor.execute
    lpush = redis.asyncio.Redis.lpush
    answer = sessions.answer

    async def executing(self: Any, query: Any, *arguments: Any, **named: Any) -> Any:
        if query is statements.ACCEPT:
            points.pass_by("accepting")
        result = await execute(self, query, *arguments, **named)
        if query is statements.ACCEPT:
            points.pass_by("accepted")
        return result

    async def pushing(self: Any, *arguments: Any) -> Any:
        result = await lpush(self, *arguments)
        points.pass_by("rung")
        return result

    def answering(*arguments: Any) -> Any:
        points.pass_by("answering")
        return answer(*arguments)

    psycopg.AsyncCursor.execute = executing  # type: ignore[assignment, method-assign]
    redis.asyncio.Redis.lpush = pushing  # type: ignore[method-assign]
    sessions.answer = answering


def main() -> None:
    """Wrap, and become the module."""
    folder, module, *arguments = sys.argv[1:]
    points = Points(Path(folder))
    (wrap_api if module == "api" else wrap_worker)(points)
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
