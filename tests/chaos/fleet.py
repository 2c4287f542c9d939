"""The processes under fire, and who puts them back: two APIs, two workers, maintenance, two beats, Postgres, Redis."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx

from local.embedded import free_port
from local.servers import EmbeddedPostgres, EmbeddedRedis
from tests.stack import COMMANDS, ROOT, SECRET, Process, eventually

LIVES = {
    # Seconds instead of hours and days, so that a minute sees whole lives.
    "SESSION_TTL_SECONDS": "12",
    "SESSION_RETENTION_SECONDS": "40",
    "EXPIRE_INTERVAL_SECONDS": "2",
    "DELETE_INTERVAL_SECONDS": "3",
    "REDELIVER_INTERVAL_SECONDS": "2",
    "DOCTOR_INTERVAL_SECONDS": "15",
}
MEMBERS = {
    "api-1": "api",
    "api-2": "api",
    "worker-1": "worker",
    "worker-2": "worker",
    "maintenance": "maintenance",
    "beat-1": "beat",
    "beat-2": "beat",
}
RESTART_SECONDS = 0.5  # how often the process runner looks


@dataclass(slots=True)
class Fleet:
    """All processes of a campaign.

    Args:
        folder: for data and logs.
        mutation: a planted bug, see `tests.chaos.mutations`.
    """

    folder: Path
    mutation: str | None = None
    postgres: EmbeddedPostgres = field(init=False)
    redis: EmbeddedRedis = field(init=False)
    ports: dict[str, int] = field(init=False)
    running: dict[str, Process] = field(init=False, default_factory=dict)
    down: set[str] = field(init=False, default_factory=set)
    ended: Counter[str] = field(init=False, default_factory=Counter)
    locks: dict[str, threading.Lock] = field(init=False, default_factory=dict)
    _lock: threading.RLock = field(init=False, default_factory=threading.RLock)
    _closing: threading.Event = field(init=False, default_factory=threading.Event)
    _runner: threading.Thread = field(init=False)

    def __enter__(self) -> Self:
        self.postgres = EmbeddedPostgres(self.folder)
        self.redis = EmbeddedRedis(self.folder)
        self.postgres.start()
        self.redis.start()
        subprocess.run([sys.executable, "-m", "db.migrate", "up"], cwd=ROOT, env=self.env, check=True)
        self.ports = {name: free_port() for name, kind in MEMBERS.items() if kind == "api"}
        for name in MEMBERS:
            self.start(name)
        self._runner = threading.Thread(target=self._put_back, daemon=True)
        self._runner.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.set()
        self._runner.join()
        for process in self.running.values():
            process.kill()
        self.redis.stop()
        self.postgres.stop()

    @property
    def urls(self) -> list[str]:
        """Of the APIs."""
        return [f"http://127.0.0.1:{port}" for port in self.ports.values()]

    @property
    def env(self) -> dict[str, str]:
        """Of all processes."""
        return {
            **{name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ},
            **LIVES,
            "DATABASE_URL": self.postgres.url,
            "REDIS_URL": self.redis.url,
            "JWT_SECRET": SECRET,
            "RATE_LIMIT": "0",
        }

    def start(self, name: str) -> None:
        """Start a member, without waiting for it."""
        kind = MEMBERS[name]
        words = COMMANDS[kind].format(n=name, folder=self.folder, port=0).split()
        if self.mutation:
            words = ["-m", "tests.chaos.mutations", self.mutation, *words[1:]]
        env = self.env | ({"API_PORT": str(self.ports[name])} if kind == "api" else {})
        with self._lock:
            self.running[name] = Process(name, [sys.executable, *words], env, self.folder / f"{name}.log")
            self.down.discard(name)

    def kill(self, name: str) -> None:
        """SIGKILL to the member and its children; it stays down until it is started."""
        with self._lock:
            self.down.add(name)
            self.running[name].kill()

    def terminate(self, name: str, seconds: float = 30) -> float:
        """SIGTERM, as a deploy sends it. Returns how long the member took."""
        with self._lock:
            self.down.add(name)
        began = time.monotonic()
        self.running[name].stop(seconds)
        return time.monotonic() - began

    def signal(self, name: str, number: signal.Signals) -> None:
        """To the member and its children, if it runs."""
        with self._lock:
            if self.running[name].running:
                self.running[name].signal(number)

    def children(self, name: str) -> list[int]:
        """The pool processes of a worker."""
        pid = self.running[name].popen.pid
        try:
            found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        except FileNotFoundError:
            return []
        return [int(child) for child in found]

    def wait(self) -> None:
        """Until everything answers."""
        for url in self.urls:
            eventually(lambda url=url: httpx.get(f"{url}/readyz", timeout=5).json()["execute"], f"{url} is ready")

    def _put_back(self) -> None:
        """The process runner: what ends by itself is started again."""
        while not self._closing.wait(RESTART_SECONDS):
            with self._lock:
                for name in [n for n, p in self.running.items() if n not in self.down and not p.running]:
                    self.ended[name] += 1
                    self.start(name)
