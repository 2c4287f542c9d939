"""Processes under measurement: started together, their CPU time and memory read by label."""

import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from benchmarks.servers import ROOT

LAUNCH = ROOT / "local" / "launch.py"
START_SECONDS = 60.0


@dataclass(frozen=True)
class Command:
    """A process to start.

    Args:
        label: of its figures; several processes may share one.
        arguments: of this Python.
        ready: a URL that answers once it is up.
    """

    label: str
    arguments: str
    env: Mapping[str, str]
    ready: str | None = None


class Processes:
    """Some processes, which end with this one however it ends."""

    def __init__(self, commands: Iterable[Command], folder: Path) -> None:
        self._commands = list(commands)
        self._folder = folder
        self._running: list[tuple[str, subprocess.Popen[bytes]]] = []

    def __enter__(self) -> Self:
        """Start all, and wait until those that say so are ready."""
        for number, command in enumerate(self._commands):
            argv = [sys.executable, "-I", "-S", str(LAUNCH), "--end-with-parent", "SIGKILL", "--"]
            env = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", **command.env}
            with self._log(number).open("ab") as log:
                popen = subprocess.Popen(
                    [*argv, sys.executable, *command.arguments.split()],
                    cwd=ROOT, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                )  # fmt: skip
            self._running.append((command.label, popen))
        try:
            for number, (command, (_, popen)) in enumerate(zip(self._commands, self._running, strict=True)):
                if command.ready and not _answers(command.ready, popen):
                    raise RuntimeError(f"{command.arguments} does not answer: {self._log(number).read_text()[-1000:]}")
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def pids(self) -> dict[str, list[int]]:
        """The first process of each command, by label."""
        found: dict[str, list[int]] = {}
        for label, popen in self._running:
            found.setdefault(label, []).append(popen.pid)
        return found

    def _log(self, number: int) -> Path:
        return self._folder / f"{self._commands[number].label}-{number}.log"

    def _stop(self) -> None:
        """At once, with all that they forked: what was measured is in the database, and checked."""
        for _, popen in self._running:
            with suppress(ProcessLookupError):
                os.killpg(popen.pid, signal.SIGKILL)
        for _, popen in self._running:
            popen.wait()
        self._running.clear()


def _answers(url: str, popen: subprocess.Popen[bytes]) -> bool:
    deadline = time.monotonic() + START_SECONDS
    while popen.poll() is None and time.monotonic() < deadline:
        try:
            urllib.request.urlopen(url, timeout=1).close()
        except urllib.error.HTTPError as error:
            if error.code < 500:
                return True
        except OSError:
            pass
        else:
            return True
        time.sleep(0.05)
    return False


@dataclass(frozen=True)
class Usage:
    """CPU seconds since each process's start, and resident bytes, by label."""

    cpu: Mapping[str, float]
    rss: Counter[str]

    def since(self, before: "Usage") -> dict[str, float]:
        """CPU seconds used since then, by label."""
        return {label: used - before.cpu.get(label, 0) for label, used in self.cpu.items()}


def usage(pids: Mapping[str, Iterable[int]]) -> Usage:
    """Of these processes and everything they forked; of children that have ended, as far as they were waited for."""
    cpu: defaultdict[str, float] = defaultdict(float)
    rss: Counter[str] = Counter()
    for label, roots in pids.items():
        for root in roots:
            process = psutil.Process(root)
            for one in [process, *process.children(recursive=True)]:
                try:
                    times, memory = one.cpu_times(), one.memory_info()
                except psutil.NoSuchProcess:
                    continue
                cpu[label] += times.user + times.system + times.children_user + times.children_system
                rss[label] += memory.rss
    return Usage(cpu, rss)
