"""`make cleanup`: expire and delete now, by hand, without Celery."""

import sys

from db import logs
from db.engine import is_outage
from workers.maintenance import Maintenance, maintenance_engine
from workers.settings import WorkerSettings


def main() -> None:
    """Run both sweeps until nothing is due, and print what they did."""
    logs.configure()
    settings = WorkerSettings.load()
    maintenance = Maintenance(
        maintenance_engine(settings), settings.limits, settings, lambda _: True, lambda _, __: True
    )
    try:
        expired = maintenance.expire_sessions(trigger="command")
        deleted = maintenance.delete_sessions(trigger="command")
    except Exception as error:
        if not is_outage(error):
            raise
        sys.exit("Postgres cannot be reached: is DATABASE_URL right, and the server up?")
    sys.stdout.write(f"expired {expired['rows']} sessions, deleted {deleted['rows']} sessions\n")


if __name__ == "__main__":
    main()
