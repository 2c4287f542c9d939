"""Nothing is left behind: the processes of the stack that lost their parent are found and ended."""

import ctypes
import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

from local.embedded import children_of

PR_SET_CHILD_SUBREAPER = 36


def adopt() -> None:
    """From now on descendants that lose their parent become children of this process."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def end_children(seconds: float) -> None:
    """Wait for all children, which have been told to end, and kill those that do not."""
    deadline = time.monotonic() + seconds
    with suppress(ChildProcessError):
        while True:
            if os.waitpid(-1, os.WNOHANG)[0] != 0:
                continue
            if time.monotonic() > deadline:
                for child in children_of(os.getpid()):
                    with suppress(ProcessLookupError):
                        os.kill(child, signal.SIGKILL)
            time.sleep(0.02)


class Parent:
    """The `make` that runs us. A Ctrl-C reaches both, but a signal to make alone makes it wait for us for ever."""

    SIGNALS = (signal.SIGINT, signal.SIGHUP)

    def __init__(self) -> None:
        self._status = Path(f"/proc/{os.getppid()}/status")
        self._caught = self._signals()

    @property
    def was_interrupted(self) -> bool:
        """make goes back to the default handling of a signal that it got; that is all that can be seen of it."""
        return bool(self._caught & ~self._signals())

    def _signals(self) -> int:
        try:
            lines = dict(line.split(":", 1) for line in self._status.read_text().splitlines())
        except OSError:
            return 0
        if lines["Name"].strip() not in {"make", "gmake"}:
            return 0
        return int(lines["SigCgt"], 16) & sum(1 << (number - 1) for number in self.SIGNALS)
