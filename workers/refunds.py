"""`make refunds`: payments that were refused and that no session holds, to be given back by hand."""

import sys

from db import logs
from db.access import Role
from db.engine import is_outage, sync_engine
from db.operations import refunds
from workers.settings import WorkerSettings

LIMIT = 1_000  # lines; the newest


def main() -> None:
    """Print one line each, separated by tabs."""
    logs.configure("WARNING")
    settings = WorkerSettings.load()
    try:
        with sync_engine(settings, "refunds", role=Role.AUDITOR).begin() as connection:
            found = refunds(connection, LIMIT)
    except Exception as error:
        if not is_outage(error):
            raise
        sys.exit("Postgres cannot be reached: is DATABASE_URL right, and the server up?")
    for one in found:
        when = one.refused_at.isoformat(timespec="seconds")
        fields = (when, one.payment_reference, one.refusal, one.user_id, one.session_id, one.task_id)
        sys.stdout.write("\t".join(map(str, fields)) + "\n")
    sys.stderr.write(f"{len(found)} payments to give back{', and perhaps more' if len(found) == LIMIT else ''}\n")


if __name__ == "__main__":
    main()
