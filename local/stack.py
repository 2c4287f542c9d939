"""The stack: servers, migrations and processes, started in order, watched, and stopped in the other order."""

import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from local.embedded import LAUNCH, EmbeddedServer
from local.errors import SetupError
from local.orphans import Parent, end_children
from local.processes import Process
from local.settings import LocalSettings
from local.state import StateFolder
from local.supervision import SOCKET_PATH_LIMIT, Program, Supervisor

ROOT = Path(__file__).parent.parent
READY_SECONDS = 90.0
STOP_SECONDS = 40.0  # supervisord kills what takes longer than it may; this is for what escaped it
CRASHES = 3  # starts of one process before all is ready: it will not get there
POLL_SECONDS = 0.1
LOOK_SECONDS = 0.5


class Stack:
    """The processes of one state folder under one supervisord."""

    def __init__(
        self,
        state: StateFolder,
        settings: LocalSettings,
        servers: Sequence[EmbeddedServer],
        migrate: Process,
        processes: Sequence[Process],
    ) -> None:
        self.state = state
        self.settings = settings
        self.servers = servers
        self.migrate = migrate
        self.processes = processes
        self._short_folder: tempfile.TemporaryDirectory[str] | None = None
        self.supervisor = Supervisor(state.folder, self._socket())
        self.supervisord: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start everything and wait until it serves.

        Raises:
            SetupError: something cannot be started; the sentence says what and where its log is.
            ServerError: an embedded server does not start.
        """
        for server in self.servers:
            server.prepare()
        self.supervisor.configure([*map(self._server, self.servers), *map(self._program, self.processes)], ROOT)
        self._start_supervisord()
        self._wait(lambda: bool(self.supervisor.processes()), "supervisord does not start")
        for server in self.servers:
            server.wait(self._is_supervised)
        self._migrate()
        self.supervisor.start_service()
        for process in self.processes:
            if process.probe:
                self._wait(partial(_answers, self.url(process)), f"{process.name} does not become ready")
        self._wait(self._all_run, "a process does not stay up")

    def watch(self) -> None:
        """Return when the `make` above wants to stop.

        Raises:
            SetupError: supervisord has ended, which nobody asked for.
        """
        parent = Parent()
        while not parent.was_interrupted:
            pid, _ = os.waitpid(-1, os.WNOHANG)  # orphans that were adopted are buried here too
            if self.supervisord and pid == self.supervisord.pid:
                self.supervisord = None
                raise SetupError(f"supervisord has ended: its log is {self.supervisor.log}.")
            if pid == 0:
                time.sleep(LOOK_SECONDS)

    def stop(self) -> None:
        """API and workers first, then the servers; in the end no process is left."""
        if self.supervisord:
            self.supervisord.send_signal(signal.SIGTERM)
            self.supervisord = None
        end_children(STOP_SECONDS)
        if self._short_folder:
            self._short_folder.cleanup()

    def url(self, process: Process) -> str:
        """Where a process with a probe answers it."""
        if process.name == "flower":
            return base_url("127.0.0.1", self.settings.flower_port) + (process.probe or "")
        return base_url(self.settings.api_host, self.settings.api_port) + (process.probe or "")

    def _server(self, server: EmbeddedServer) -> Program:
        return Program(server.name, server.argv("--lock", self._lock), server.stop_signal, is_server=True)

    def _program(self, process: Process) -> Program:
        return Program(process.name, self._launched(self._command(process)), stop_seconds=process.stop_seconds)

    def _command(self, process: Process) -> list[str]:
        return process.command(sys.executable, self.state.folder, "127.0.0.1", self.settings.flower_port)

    def _launched(self, command: list[str]) -> list[str]:
        launcher = [sys.executable, "-I", "-S", str(LAUNCH), "--end-with-parent", "SIGTERM", "--lock", self._lock]
        return [*launcher, "--", *command]

    @property
    def _lock(self) -> str:
        return str(self.state.processes_lock)

    def _start_supervisord(self) -> None:
        with self.supervisor.log.open("ab") as log:
            self.supervisord = subprocess.Popen(
                self._launched(self.supervisor.command),
                cwd=self.state.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for us, who stop the rest in order
                env=os.environ | {"PYTHONUNBUFFERED": "1"},  # or logs would lag behind
            )

    def _migrate(self) -> None:
        log = self.state.logs / f"{self.migrate.name}.log"
        with log.open("wb") as stream:
            command = self._launched(self._command(self.migrate))
            done = subprocess.run(
                command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream, check=False
            )
        if done.returncode != 0:
            raise SetupError(f"The migrations failed: {_end_of(log)}")

    def _wait(self, is_done: Callable[[], bool], otherwise: str) -> None:
        deadline = time.monotonic() + READY_SECONDS
        starts: dict[str, set[int]] = defaultdict(set)
        while not is_done():
            if not self._is_supervised():
                raise SetupError(f"supervisord does not start: {_end_of(self.supervisor.log)}")
            for process in self.supervisor.processes():
                starts[process["name"]].add(process["start"])
                if len(starts[process["name"]]) >= CRASHES:
                    log = self.state.logs / f"{process['name']}.log"
                    raise SetupError(f"{process['name']} ends as soon as it starts: {_end_of(log)} (more in {log})")
            if time.monotonic() > deadline:
                raise SetupError(f"{otherwise} within {READY_SECONDS:.0f} s: see {self.state.logs}.")
            time.sleep(POLL_SECONDS)

    def _all_run(self) -> bool:
        return all(process["statename"] == "RUNNING" for process in self.supervisor.processes())

    def _is_supervised(self) -> bool:
        return self.supervisord is not None and self.supervisord.poll() is None

    def _socket(self) -> Path:
        socket = self.state.folder / "supervisor.sock"
        if len(os.fsencode(socket)) > SOCKET_PATH_LIMIT:
            self._short_folder = tempfile.TemporaryDirectory(prefix="checkout-", dir="/tmp")
            socket = Path(self._short_folder.name) / socket.name
        return socket


def base_url(host: str, port: int) -> str:
    """How a browser on this machine reaches it."""
    reachable = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)  # noqa: S104
    return f"http://{reachable}:{port}"


def _answers(url: str) -> bool:
    """Whether it is ready for everything; the API answers 200 while it can only accept."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=5) as response:
            return response.status == 200 and b'"execute":false' not in response.read()
    except OSError:
        return False


def _end_of(log: Path) -> str:
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()] if log.exists() else []
    return lines[-1].strip() if lines else "it says nothing"
