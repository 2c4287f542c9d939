"""A `python -m local.up` in a process of its own, with what tests ask about it."""

import fcntl
import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Self

import psutil
import psycopg

from local.embedded import free_port
from tests.stack import ROOT, eventually

STANDINS = ("-m", "tests.local.standins", "up")


class Running:
    """One stack in one state folder."""

    def __init__(
        self,
        folder: Path,
        *arguments: str,
        python: str = sys.executable,
        root: Path = ROOT,
        environment: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self.folder = folder
        self.arguments = [python, *(arguments or STANDINS)]
        self.root = root
        self.output = folder.with_name(f"{folder.name}.out")
        self.api_port = free_port()
        self.flower_port = free_port()
        self.environment = {
            **{name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ},
            "STATE_DIR": str(folder),
            "API_PORT": str(self.api_port),
            "FLOWER_PORT": str(self.flower_port),
            **environment,
        }
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process and self.process.poll() is None:
            self.stop()

    @property
    def pid(self) -> int:
        """Of `local.up` itself."""
        assert self.process
        return self.process.pid

    @property
    def said(self) -> str:
        """All that it has printed."""
        return self.output.read_text()

    def launch(self, user: int | None = None) -> Self:
        """Start it and go on."""
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                self.arguments,
                cwd=self.root,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                user=user,
                group=user,
                extra_groups=None if user is None else [],
            )
        return self

    def start(self, user: int | None = None) -> Self:
        """Start it and wait until it says that it is up."""
        self.launch(user)
        eventually(self._is_up, "the stack is up")
        return self

    def _is_up(self) -> bool:
        assert self.process
        if self.process.poll() is not None:
            raise RuntimeError(f"it ended: {self.said}")
        return "Ctrl-C" in self.said

    def stop(self, number: signal.Signals = signal.SIGINT) -> int:
        """Tell it to stop; returns its exit code."""
        assert self.process
        self.process.send_signal(number)
        return self.process.wait(60)

    def refuse(self) -> str:
        """Start it where it must refuse; returns the one line that it says."""
        self.launch()
        assert self.process
        assert self.process.wait(60) == 1
        return self.said

    def kill(self) -> None:
        """SIGKILL to it alone."""
        assert self.process
        self.process.kill()
        self.process.wait()

    def published(self, name: str) -> str:
        """A setting as the stack leaves it for other commands."""
        found = re.search(rf"^{name}=(.*)$", (self.folder / "env").read_text(), re.MULTILINE)
        assert found
        return found[1].strip("'")

    def child(self, words: str) -> psutil.Process:
        """Its process with these words in the command line."""
        for process in psutil.Process(self.pid).children(recursive=True):
            with suppress(psutil.Error):
                if words in " ".join(process.cmdline()):
                    return process
        raise AssertionError(f"no process has {words}")

    def answers(self, port: int, path: str = "/") -> bool:
        """Whether something answers there."""
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as response:
            return bool(response.status == 200)

    def is_gone(self) -> bool:
        """Whether none of its processes lives: each of them holds the lock."""
        with (self.folder / "processes.lock").open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
        return True


def starts(running: Running) -> int:
    """How often the stand-in for the migrations ran on this data."""
    with psycopg.connect(running.published("DATABASE_URL").replace("+psycopg", "")) as connection:
        row = connection.execute("SELECT count(*) FROM starts").fetchone()
    assert row
    return int(row[0])
