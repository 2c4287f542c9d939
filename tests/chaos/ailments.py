"""What may befall a worker from within: `python -m tests.chaos.ailments NAME MODULE ARGUMENT ...`."""

import os
import runpy
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

POISON = "poison"  # a package that some of these choke on


def deaf() -> None:
    """Asks Redis for messages once, and never again; everything else goes on, heartbeats too."""
    from kombu.transport.redis import Channel

    start = Channel._brpop_start
    asked: list[bool] = []

    def once(self: Any, *arguments: Any, **named: Any) -> Any:
        if asked:
            return None
        asked.append(True)
        return start(self, *arguments, **named)

    Channel._brpop_start = once


def slow() -> None:
    """Each message takes a second."""
    from workers.execution import Executor

    execute = Executor.execute

    def slowly(self: Executor, *arguments: Any, **named: Any) -> Any:
        time.sleep(1)
        return execute(self, *arguments, **named)

    Executor.execute = slowly  # type: ignore[method-assign]


def _choking(choke: Callable[[], Any]) -> None:
    from workers import execution

    decide = execution.decide

    def deciding(shopper: Any, task: Any, new_id: Any) -> Any:
        if task.package == POISON:
            choke()
        return decide(shopper, task, new_id)

    execution.decide = deciding


def raises() -> None:
    """The rules have a fault that one package brings out."""

    def choke() -> None:
        raise ZeroDivisionError

    _choking(choke)


def dies() -> None:
    """One package kills the process that executes it, as a crash of the interpreter or the kernel's lack of memory."""
    _choking(lambda: os.kill(os.getpid(), signal.SIGKILL))


def main() -> None:
    """Fall ill, and become the module."""
    name, module, *arguments = sys.argv[1:]
    {"deaf": deaf, "slow": slow, "raises": raises, "dies": dies}[name]()
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
