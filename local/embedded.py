"""The life of a server that comes in a wheel: prepared once in a folder, started, stopped, killed, paused."""

import os
import random
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from local.account import Account

LAUNCH = Path(__file__).with_name("launch.py")
START_SECONDS = 60.0  # a crashed database on a slow disk replays its log first
STOP_SECONDS = 30.0

# "Your parent died" is sent when the *thread* that forked ends, so one that lives as long as the process forks all.
_forker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="embedded-servers")


class ServerError(RuntimeError):
    """A server that cannot be prepared or started; the message ends with its own last words."""


class EmbeddedServer:
    """One server in one folder, on one port of 127.0.0.1, with a password of its own.

    The folder may be any: it is made, stays after a stop, and a later object on it continues with its data.
    """

    name: str
    stop_signal: signal.Signals

    def __init__(self, folder: Path, port: int | None = None) -> None:
        self.folder = folder.absolute()
        self.port = port or free_port()
        self.data = self.folder / self.name
        self.log = self.folder / "logs" / f"{self.name}.log"
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """Where clients find it, password included."""
        raise NotImplementedError

    def prepare(self) -> None:
        """Make the folder ready for `argv`; what is there already stays."""
        raise NotImplementedError

    def command(self) -> list[str]:
        """The server's own command line."""
        raise NotImplementedError

    def ping(self) -> None:
        """Return if the server answers, raise OSError or the like if not."""
        raise NotImplementedError

    @property
    def account(self) -> Account:
        """Who the server runs as: never root."""
        return Account.of_server(self.data, needs=Path(self.command()[0]))

    def argv(self, *options: str) -> list[str]:
        """The command under the launcher, for whoever keeps it running: it ends with that parent."""
        return self.argv_of(self.command(), *options)

    def argv_of(self, command: list[str], *options: str) -> list[str]:
        """Any command as the server's user, which sees nothing of our environment."""
        launcher = [sys.executable, "-I", "-S", str(LAUNCH), "--bare", "--end-with-parent", self.stop_signal.name]
        return [*launcher, *options, *self.account.options(), "--", *command]

    def start(self) -> None:
        """Prepare, start and wait until it answers; on the same port as before.

        Raises:
            ServerError: it ended, or did not answer in time.
        """
        assert self.process is None, f"{self.name} is running"
        self.prepare()
        self.log.parent.mkdir(exist_ok=True)
        with self.log.open("ab") as log:
            self.process = _forker.submit(_open, self.argv(), log).result()
        try:
            self.wait(lambda: self.process is not None and self.process.poll() is None)
        except ServerError:
            self.kill()
            raise

    def wait(self, is_running: Callable[[], bool], seconds: float = START_SECONDS) -> None:
        """Wait until the server answers.

        Raises:
            ServerError: it ended, or did not answer in time.
        """
        deadline = time.monotonic() + seconds
        while True:
            try:
                return self.ping()
            except Exception as error:  # the client libraries have many ways to say "not yet"
                if not is_running() or time.monotonic() > deadline:
                    raise ServerError(f"{self.name} does not start: {self.last_words()}") from error
            time.sleep(0.02)

    def last_words(self) -> str:
        """The end of its log."""
        lines = self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
        return " / ".join(lines[-3:]) or "it says nothing"

    def stop(self) -> None:
        """Stop in good order. Stopping twice is no error."""
        if self.process is None:
            return
        self.resume()
        self.process.send_signal(self.stop_signal)
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
        self.process = None

    def kill(self) -> None:
        """SIGKILL to the server and to all that it forked, as a power cut would."""
        if self.process is None:
            return
        self.process.send_signal(signal.SIGSTOP)  # or it would fork on while its children are listed
        children = children_of(self.process.pid)
        self.process.kill()
        self.process.wait()
        self.process = None
        for child in children:
            _kill(child)

    def pause(self) -> None:
        """Freeze it: connections stay open and nothing answers."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on after `pause`."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        assert self.process is not None, f"{self.name} is not running"
        self.process.send_signal(number)
        for child in children_of(self.process.pid):
            with suppress(ProcessLookupError):
                os.kill(child, number)


def free_port() -> int:
    """A port of 127.0.0.1 that is free, from below the range that the kernel gives to clients.

    From within that range, a client that tries a stopped server again could be given the server's own port, talk to
    itself and keep the server from coming back.
    """
    for _ in range(1000):
        port = random.randrange(15_000, 32_000)  # noqa: S311 - not a secret
        if is_free("127.0.0.1", port):
            return port
    raise ServerError("127.0.0.1 has no free port between 15000 and 32000")


def is_free(host: str, port: int) -> bool:
    """Whether a server could listen there now."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def kept_secret(file: Path) -> str:
    """The secret of that file, made on the first call; nobody else can read it."""
    try:
        return file.read_text().strip()
    except FileNotFoundError:
        draft = file.with_suffix(f".{os.getpid()}")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as stream:
            stream.write(secrets.token_hex(32) + "\n")
        draft.rename(file)
        return file.read_text().strip()


def _open(argv: list[str], log: BinaryIO) -> subprocess.Popen[bytes]:
    return subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/")


def children_of(parent: int) -> list[int]:
    """The processes that `parent` forked and that live."""
    stats = ((int(folder.name), _stat(folder)) for folder in Path("/proc").glob("[0-9]*"))
    return [process for process, (state, its_parent) in stats if its_parent == parent and state != "Z"]


def _stat(folder: Path) -> tuple[str, int]:
    try:
        state, parent = (folder / "stat").read_text().rpartition(")")[2].split()[:2]
    except OSError:
        return "Z", 0  # it ended meanwhile
    return state, int(parent)


def _kill(process: int) -> None:
    """SIGKILL, and wait: what it shares with the others would keep the server from starting again."""
    with suppress(ProcessLookupError):
        os.kill(process, signal.SIGKILL)
    while _stat(Path(f"/proc/{process}"))[0] != "Z":
        time.sleep(0.005)
