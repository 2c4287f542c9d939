"""`make up`: the whole service on this machine, until Ctrl-C."""

import errno
import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType

from local.checks import check_ports
from local.embedded import EmbeddedServer, ServerError, free_port
from local.errors import SetupError
from local.orphans import adopt
from local.processes import MIGRATE, PROCESSES, Process
from local.servers import EmbeddedPostgres, EmbeddedRedis
from local.settings import LocalSettings, forget_foreign, given, state_dir
from local.stack import Stack
from local.state import StateFolder
from local.welcome import welcome


class StopRequested(BaseException):
    """Somebody wants it to stop; it may come anywhere, as KeyboardInterrupt does."""


def main(migrate: Process = MIGRATE, processes: Sequence[Process] = PROCESSES) -> int:
    """Run the stack until it is told to stop.

    Returns:
        The exit code: 0 if it was told to.
    """
    _listen_to_signals()
    forget_foreign()
    state = StateFolder(state_dir())
    try:
        state.create()
        state.hold()
        _run(state, migrate, processes)
    except StopRequested:
        return 0
    except (SetupError, ServerError) as error:
        return _refuse(str(error))
    except OSError as error:
        if error.errno not in {errno.ENOSPC, errno.EDQUOT}:
            raise
        return _refuse(f"The disk of {state.folder} is full: make room or set STATE_DIR to a folder on another disk.")
    return 0


def _run(state: StateFolder, migrate: Process, processes: Sequence[Process]) -> None:
    servers, environment = _environment(state)
    os.environ.update(environment)
    settings = LocalSettings.load()
    check_ports(settings)
    stack = Stack(state, settings, servers, migrate, processes)
    adopt()
    try:
        _say(f"Starting in {state.folder} ...")
        stack.start()
        state.publish(given())
        _say(welcome(settings, state, is_secret_made="JWT_SECRET" in environment))
        stack.watch()
    finally:
        _ignore_signals()
        _say("Stopping ...")
        state.withdraw()
        stack.stop()


def _environment(state: StateFolder) -> tuple[list[EmbeddedServer], dict[str, str]]:
    """The servers and the settings that nobody gave."""
    servers: list[EmbeddedServer] = []
    environment = {"STATE_DIR": str(state.folder)}
    for setting, kind in {"DATABASE_URL": EmbeddedPostgres, "REDIS_URL": EmbeddedRedis}.items():
        if not os.environ.get(setting):
            server = kind(state.folder)
            servers.append(server)
            environment[setting] = server.url
    if not os.environ.get("JWT_SECRET") and not os.environ.get("JWT_JWKS_URL"):
        environment["JWT_SECRET"] = state.secret()
        environment["DEMO"] = os.environ.get("DEMO") or "1"  # the shop at `/`: a secret made here is for development
    if os.environ.get("API_PORT") == "0":
        environment["API_PORT"] = str(free_port())
    return servers, environment


def _listen_to_signals() -> None:
    def stop(_: int, __: FrameType | None) -> None:
        raise StopRequested

    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup
        signal.signal(signal.SIGHUP, stop)


def _ignore_signals() -> None:
    """It is stopping already, and takes seconds."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


def _say(text: str) -> None:
    try:
        print(text, flush=True)
    except OSError:  # the terminal is gone
        sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115


def _refuse(sentence: str) -> int:
    print(sentence, file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
