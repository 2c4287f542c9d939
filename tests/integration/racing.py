"""Races on real connections: many users, each of whose tasks several executors do at the same time."""

import random
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Barrier
from typing import Any

from psycopg import Connection

from db.lifecycle import Task
from tests.factories import accept
from workers.execution import Executor, TasksFailedError

RACERS = 4


class Race:
    """Runs steps at the same time, each racer on connections of its own.

    Args:
        executors: one for each racer.
        connections: one for each racer, in autocommit.
    """

    def __init__(self, executors: Sequence[Executor], connections: Sequence[Connection[Any]]) -> None:
        self.executors = executors
        self.connections = connections
        self.pool = ThreadPoolExecutor(len(executors))

    def at_once(self, *steps: Callable[[Executor, Connection[Any]], Any]) -> list[Any]:
        """Let the steps begin at the same instant, in any order, and give their results in the order given."""
        barrier = Barrier(len(steps))

        def run(number: int, step: Callable[[Executor, Connection[Any]], Any]) -> Any:
            barrier.wait(60)
            return step(self.executors[number], self.connections[number])

        begun: list[Future[Any]] = [self.pool.submit(run, number, step) for number, step in enumerate(steps)]
        return [future.result(60) for future in begun]


def asking(*tasks: Task) -> Callable[[Executor, Connection[Any]], None]:
    """Accept tasks, then execute them, as an API process and a worker do."""

    def step(executor: Executor, connection: Connection[Any]) -> None:
        accept(connection, *tasks)
        execute(executor, *tasks)

    return step


def executing(*tasks: Task) -> Callable[[Executor, Connection[Any]], None]:
    """Execute tasks that were accepted before."""
    return lambda executor, _: execute(executor, *tasks)


def execute(executor: Executor, *tasks: Task) -> None:
    """Execute a message; what failed alone, e.g. of a deadlock, is rung again, as the sweep does."""
    ids = [task.id for task in tasks]
    random.shuffle(ids)
    for _ in range(executor.max_attempts):
        try:
            executor.execute(ids, "race")
        except TasksFailedError:
            continue
        return
    raise AssertionError(f"some of {ids} fail again and again")
