"""The service in real processes on a database and a Redis of its own, for tests that start, kill and ask it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx
import jwt

from local.embedded import free_port

ROOT = Path(__file__).resolve().parent.parent
SECRET = "a secret for tests, of more than thirty-two bytes"
DEADLINE = 60.0  # seconds; for conditions that normally hold within one

T = TypeVar("T")

_WORKER = "-m celery --quiet -A workers.celery_app worker --without-gossip --without-mingle"
COMMANDS = {
    "api": "-m api",
    "worker": f"{_WORKER} -Q sessions -n sessions-{{n}}@%h -P solo",
    "maintenance": f"{_WORKER} -Q maintenance -n maintenance-{{n}}@%h -c 2",
    "beat": "-m celery --quiet -A beat_schedule beat --schedule {folder}/beat-{n}",
    "flower": "-m celery --quiet -A workers.celery_app flower --address=127.0.0.1 --port={port}",
}


def token(user_id: str, role: str = "authenticated", secret: str = SECRET, **claims: Any) -> str:
    """A bearer token like Supabase's."""
    return jwt.encode({"sub": user_id, "role": role, "exp": time.time() + 3600, **claims}, secret, "HS256")


def headers(user_id: str, role: str = "authenticated", **more: str) -> dict[str, str]:
    """Headers of a request by this user."""
    return {"Authorization": f"Bearer {token(user_id, role)}", **more}


def eventually(look: Callable[[], T], why: str = "", seconds: float = DEADLINE) -> T:
    """Wait until `look` gives something true, and give it back; an exception counts as not yet."""
    deadline = time.monotonic() + seconds
    while True:
        error: Exception | None = None
        found: T | None = None
        try:
            found = look()
        except (httpx.HTTPError, AssertionError, OSError) as caught:
            error = caught
        if found:
            return found
        assert time.monotonic() < deadline, f"not within {seconds} s: {why or look} ({error or found!r})"
        time.sleep(0.02)


class Process:
    """One process of the service, in a group of its own."""

    def __init__(self, name: str, argv: list[str], env: dict[str, str], log: Path) -> None:
        self.name = name
        self.log = log
        with log.open("ab") as output:
            self.popen = subprocess.Popen(
                argv, env=env, cwd=ROOT, stdout=output, stderr=output, stdin=subprocess.DEVNULL, start_new_session=True
            )

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self.popen.poll() is None

    def signal(self, number: signal.Signals) -> None:
        """To the whole group."""
        os.killpg(self.popen.pid, number)

    def kill(self) -> None:
        """SIGKILL to the process and all its children."""
        if self.running:
            self.signal(signal.SIGKILL)
        self.popen.wait()

    def stop(self, seconds: float = 30) -> int:
        """SIGTERM to the process alone, as a process runner sends it; returns its exit status."""
        if self.running:
            self.popen.terminate()
        try:
            return self.popen.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise


class Stack:
    """Processes of the service over one Postgres database and one Redis.

    Args:
        folder: for logs and beat's schedule.
        settings: environment beside the URLs, e.g. `SESSION_TTL_SECONDS="5"`.
    """

    def __init__(self, database_url: str, redis_url: str, folder: Path, **settings: str) -> None:
        self.folder = folder
        self.api_port = free_port()
        self.flower_port = free_port()
        self.processes: list[Process] = []
        self.env = {
            **{name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ},
            "DATABASE_URL": database_url,
            "REDIS_URL": redis_url,
            "JWT_SECRET": SECRET,
            "RATE_LIMIT": "0",
            "API_PORT": str(self.api_port),
            **settings,
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self.processes:
            process.kill()

    @property
    def url(self) -> str:
        """Of the API."""
        return f"http://127.0.0.1:{self.api_port}"

    def start(self, name: str, ready: bool = True, **settings: str) -> Process:
        """Start one process; an API is waited for until it answers."""
        words = {"n": str(len(self.processes)), "folder": str(self.folder), "port": str(self.flower_port)}
        argv = [sys.executable, *(word.format(**words) for word in COMMANDS[name].split())]
        log = self.folder / f"{name}-{len(self.processes)}.log"
        process = Process(name, argv, {**self.env, **settings}, log)
        self.processes.append(process)
        if name == "api" and ready:
            url = f"http://127.0.0.1:{settings.get('API_PORT', self.api_port)}/healthz"
            eventually(lambda: httpx.get(url).status_code == 200, f"{name} answers; see {log}")
        return process

    def start_all(self) -> Self:
        """API, worker, maintenance worker and beat."""
        for name in ("api", "worker", "maintenance", "beat"):
            self.start(name)
        return self

    @contextmanager
    def client(self, user_id: str, role: str = "authenticated", **more: str) -> Iterator[httpx.Client]:
        """An HTTP client that sends this user's token."""
        with httpx.Client(base_url=self.url, headers=headers(user_id, role, **more), timeout=60) as client:
            yield client
