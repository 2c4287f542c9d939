"""The systems that are compared: which processes each has, and how its answer is known."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from benchmarks.load import Target
from benchmarks.processes import Command, Processes
from benchmarks.requests import SECRET
from benchmarks.servers import Servers
from local.embedded import free_port
from local.processes import WORKER

# All clients are one address here: its limits are counted as ever, and out of reach.
CROWD: Final = {"ADDRESS_RATE_LIMIT": "1000000", "ADDRESS_CONNECTION_LIMIT": "100000"}


@dataclass(frozen=True)
class Choice:
    """How many processes of what; each system is measured at the choice that serves it best.

    Args:
        api: processes of the API.
        pool: of the Celery worker, `prefork` or `solo`.
        children: of a prefork worker.
        connections: of the direct baseline to Postgres, per process.
        wait: how the textbook baseline waits for a result (see `benchmarks.textbook`).
        workers: Celery workers, each with its children.
    """

    api: int = 1
    pool: str = "prefork"
    children: int = 2
    connections: int = 8
    wait: str = "get"
    workers: int = 1

    def describe(self, system: str) -> str:
        """As far as it concerns that system."""
        api = f"{self.api} API process{'es' if self.api > 1 else ''}"
        if system == "direct":
            return f"{api}, {self.connections} connections each"
        pool = f"{self.pool} -c {self.children}" if self.pool == "prefork" else self.pool
        worker = f"{self.workers} Celery worker{'s' if self.workers > 1 else ''} ({pool})"
        if system == "textbook":
            worker += ", waits by `get`" if self.wait == "get" else f", polls each {self.wait} ms"
        return f"{api}, {worker}"

    def differences(self) -> dict[str, object]:
        """As keys and values."""
        return asdict(self)


CREATED = Target(201, "id")
LOADS: Final = {
    "direct": ("direct", CREATED),
    "textbook": ("textbook", CREATED),
    "ours": ("ours", Target(201, "session_id", "wait=30")),
    "ours, accept alone": ("ours", Target(202, "session_id")),
}
# What served each best on two cores; `compare` measures it again unless told not to.
CHOICES: Final = {"direct": Choice(api=2), "textbook": Choice(), "ours": Choice(pool="solo")}
POOLS: Final = (("prefork", 1), ("prefork", 2), ("solo", 1))
WAITS: Final = ("get", "20", "100")
CANDIDATES: Final = {
    "direct": [Choice(api=api, connections=size) for api in (1, 2) for size in (4, 8, 16)],
    "textbook": [Choice(api=api, children=n, wait=wait) for api in (1, 2) for n in (1, 2) for wait in WAITS],
    "ours": [Choice(api=api, pool=pool, children=n) for api in (1, 2) for pool, n in POOLS],
}  # fmt: skip


@dataclass(frozen=True)
class System:
    """A running system."""

    name: str
    choice: Choice
    ports: list[int]
    database_url: str
    processes: Processes


@contextmanager
def running(
    name: str,
    choice: Choice,
    servers: Servers,
    database_url: str,
    folder: Path,
    without: Collection[str] = (),
    number: int = 0,
) -> Iterator[System]:
    """Start a system's processes over a database of its own.

    Args:
        without: labels of processes that are not started.
        number: of its Redis database; two of the same system at once need two.
    """
    ports = [free_port() for _ in range(choice.api)]
    env = {"DATABASE_URL": database_url, "REDIS_URL": servers.redis_url(number), "JWT_SECRET": SECRET, **CROWD}
    commands = _COMMANDS[name](choice, ports, env, servers, folder)
    with Processes([command for command in commands if command.label not in without], folder) as processes:
        yield System(name, choice, ports, database_url, processes)


def _apis(module: str, ports: list[int], path: str, env: dict[str, str]) -> list[Command]:
    return [
        Command("api", f"-m {module}", {**env, "API_PORT": str(port)}, f"http://127.0.0.1:{port}{path}")
        for port in ports
    ]


def _direct(choice: Choice, ports: list[int], env: dict[str, str], _: Servers, __: Path) -> list[Command]:
    return _apis("benchmarks.direct", ports, "/", {**env, "POOL_SIZE": str(choice.connections)})


def _textbook(choice: Choice, ports: list[int], env: dict[str, str], servers: Servers, _: Path) -> list[Command]:
    env = {**env, "REDIS_URL": servers.redis_url(14), "RESULT_URL": servers.redis_url(15), "TEXTBOOK_WAIT": choice.wait}
    worker = (
        "-m celery -A benchmarks.textbook_worker worker --without-gossip --without-mingle --without-heartbeat"
        f" --loglevel WARNING -n textbook-{{n}}@%h -c {choice.children} -P {choice.pool}"
    )
    workers = [Command("worker", worker.format(n=n), env) for n in range(choice.workers)]
    return [*workers, *_apis("benchmarks.textbook", ports, "/", env)]


def _ours(choice: Choice, ports: list[int], env: dict[str, str], _: Servers, folder: Path) -> list[Command]:
    """Everything that `make up` starts but Flower."""
    worker = f"{WORKER} -Q sessions -n sessions-{{n}}@%h -c {choice.children} -P {choice.pool}"
    return [
        *(Command("worker", worker.format(n=n), env) for n in range(choice.workers)),
        Command("maintenance", f"{WORKER} -Q maintenance -n maintenance@%h -c 2", env),
        Command("beat", f"-m celery -A beat_schedule beat --schedule {folder}/beat-{ports[0]}", env),
        *_apis("api", ports, "/healthz", env),
    ]


_COMMANDS = {"direct": _direct, "textbook": _textbook, "ours": _ours}
