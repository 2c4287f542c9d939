"""`make retry ID=...`: take up a task that was given up, once its cause is gone."""

import sys
from uuid import UUID

from uuid_utils.compat import uuid7

from db import logs
from db.access import Role
from db.engine import is_outage, sync_engine
from db.operations import retry
from workers.configuration import create_app
from workers.doorbell import ring
from workers.settings import WorkerSettings


def main(arguments: list[str]) -> None:
    """Retry each task named, and print the new tasks' ids."""
    logs.configure("WARNING")
    settings = WorkerSettings.load()
    try:
        task_ids = [UUID(argument) for argument in arguments]
    except ValueError as error:
        sys.exit(f"Not the id of a task: {error}.")
    if not task_ids:
        sys.exit("Name the task: `make retry ID=...` (its id is in the answer, in the log, and in `make refunds`).")
    engine = sync_engine(settings, "retry", role=Role.OPERATOR)
    app = create_app(settings, {"socket_timeout": 2, "socket_connect_timeout": 2, "max_retries": 1})
    for task_id in task_ids:
        try:
            with engine.begin() as connection:
                new = retry(connection, task_id, uuid7())
        except Exception as error:
            if not is_outage(error):
                raise
            sys.exit("Postgres cannot be reached: is DATABASE_URL right, and the server up?")
        if new is None:
            sys.exit(f"{task_id} was not given up (or is no task): what was told stays told, so it is left alone.")
        ring(app, [new])
        sys.stdout.write(f"{new[0]} takes up {task_id}, a {new[1]}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
