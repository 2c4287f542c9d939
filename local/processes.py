"""The service's processes and their command lines: the one place for both `make up` and docker-compose.yml.

Each is a worker's or a server's natural unit of restart, and stops on SIGTERM.
"""

import shlex
from dataclasses import dataclass
from pathlib import Path

WORKER = "-m celery --quiet -A workers.celery_app worker --without-gossip --without-mingle --loglevel INFO"


@dataclass(frozen=True)
class Process:
    """One process: the arguments of its `python`, where it answers over HTTP that it is well, and when it is killed.

    What a killed worker had not committed is done again, so no stop needs to be waited for long.
    """

    name: str
    arguments: str
    probe: str | None = None
    stop_seconds: int = 10

    def command(self, python: str, state: Path, flower_address: str, flower_port: int) -> list[str]:
        """The command line on this machine."""
        values = {"state": state, "flower_address": flower_address, "flower_port": flower_port}
        return [python, *(word.format(**values) for word in shlex.split(self.arguments))]


MIGRATE = Process("migrate", "-m db.migrate up")

PROCESSES = (
    Process("api", "-m api", probe="/readyz"),
    # It executes by itself: at SIGTERM under load, billiard's children wait up to 30 s for results of theirs to be read
    # that nobody reads any more. It is as quick, and takes 200 MB less.
    Process("worker", f"{WORKER} -Q sessions -n sessions@%h -P solo"),
    # Apart, so that a purge never delays a shopper; and two children, so that it never delays what rings again.
    Process("worker-maintenance", f"{WORKER} -Q maintenance -n maintenance@%h -c 2"),
    Process("beat", "-m celery --quiet -A beat_schedule beat --schedule {state}/beat-schedule --loglevel INFO"),
    Process(
        "flower",
        "-m celery --quiet -A workers.celery_app flower --address={flower_address} --port={flower_port}"
        # It looks on: what stops or repeats a task belongs to the service, and without a password nothing else may.
        " --read_only=True"
        # Workers send events by themselves; its own order to do so, every 5 s, would only load them.
        " --enable_events=False"
        # Each names up to 256 ids: 200 MB at most.
        " --persistent=True --db={state}/flower.db --state_save_interval=60000"
        " --purge_offline_workers=600 --max_tasks=20000",
        probe="/healthcheck",
        stop_seconds=5,  # its state is saved at once; then it waits for answers of workers that stop as well
    ),
)
