"""supervisord as the process runner: its configuration, and its remote control."""

import os
import pwd
import shlex
import signal
import sys
import xmlrpc.client
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from supervisor.xmlrpc import SupervisorTransport

CONFIGURATION = "supervisord.conf"
SERVERS, SERVICE = 10, 20  # started in this order, stopped in the other
STEADY_SECONDS = 3  # who ends sooner has failed to start: it is tried again after a while that grows
SOCKET_PATH_LIMIT = 100  # the kernel's is 107 bytes, and supervisord adds its process id for a moment


@dataclass(frozen=True)
class Program:
    """One process under supervision."""

    name: str
    command: list[str]
    stop_signal: signal.Signals = signal.SIGTERM
    stop_seconds: int = 10
    is_server: bool = False


class Supervisor:
    """supervisord's configuration in one folder, its working folder, and the calls to it while it runs."""

    def __init__(self, folder: Path, socket: Path) -> None:
        self.folder = folder
        self.log = folder / "logs" / "supervisord.log"
        self.socket = socket

    @property
    def command(self) -> list[str]:
        """To be run in the folder."""
        return [sys.executable, "-I", "-m", "supervisor.supervisord", "-c", CONFIGURATION]

    def configure(self, programs: Iterable[Program], working_folder: Path) -> None:
        """Write the configuration. Secrets are not in it: they are inherited."""
        programs = list(programs)
        service = ",".join(program.name for program in programs if not program.is_server)
        sections = {
            "supervisord": {
                "nodaemon": "true",
                "silent": "true",
                "logfile": "logs/supervisord.log",  # relative: it expands the % of a path twice
                "logfile_maxbytes": "1MB",
                "logfile_backups": "1",
                "pidfile": "supervisord.pid",
                "nocleanup": "true",
                "minfds": "256",  # the default is more than some users may have
                "user": pwd.getpwuid(0).pw_name if os.geteuid() == 0 else "",  # or it warns, as root
            },
            "unix_http_server": {"file": _escape(self.socket), "chmod": "0700"},
            "rpcinterface:supervisor": {
                "supervisor.rpcinterface_factory": "supervisor.rpcinterface:make_main_rpcinterface"
            },
            **{f"program:{program.name}": self._program(program, working_folder) for program in programs},
            "group:service": {"programs": service, "priority": str(SERVICE)},
        }
        (self.folder / CONFIGURATION).write_text("\n".join(_section(name, values) for name, values in sections.items()))

    def _program(self, program: Program, working_folder: Path) -> dict[str, str]:
        return {
            "command": _escape(shlex.join(program.command)),
            "directory": _escape(working_folder),
            "priority": str(SERVERS),
            "autostart": str(program.is_server).lower(),  # the rest waits for the migrations
            "autorestart": "true",
            "startsecs": str(STEADY_SECONDS),
            "startretries": "1000000",  # never give up: what it waits for may be back any minute
            "stopsignal": program.stop_signal.name.removeprefix("SIG"),
            "stopwaitsecs": str(program.stop_seconds),
            "killasgroup": "true",
            "redirect_stderr": "true",
            "stdout_logfile": f"logs/{program.name}.log",
            "stdout_logfile_maxbytes": "10MB",
            "stdout_logfile_backups": "2",
        }

    def start_service(self) -> None:
        """Start everything that is not a server."""
        self._calls.startProcessGroup("service", False)

    def processes(self) -> list[dict[str, Any]]:
        """Each with `name`, `statename`, `start` and `pid`; nothing while supervisord itself starts."""
        try:
            found = self._calls.getAllProcessInfo()
        except (OSError, xmlrpc.client.Fault):
            return []
        assert isinstance(found, list)
        return found

    @property
    def _calls(self) -> Any:
        transport = SupervisorTransport(None, None, f"unix://{self.socket}")
        return xmlrpc.client.ServerProxy("http://127.0.0.1", transport=transport).supervisor


def _section(name: str, values: dict[str, str]) -> str:
    return "\n".join([f"[{name}]", *(f"{key} = {value}" for key, value in values.items() if value), ""])


def _escape(value: str | Path) -> str:
    return str(value).replace("%", "%%")
