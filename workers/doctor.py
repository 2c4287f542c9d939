"""`make doctor`: does everything hold that must? A table, and a non-zero exit status if something does not."""

import sys
from collections.abc import Sequence
from datetime import timedelta

from db import logs
from db.access import Role
from db.engine import is_outage, sync_engine
from db.invariants import Bounds, Finding, examine
from workers.settings import WorkerSettings

BROKEN, UNKNOWN = 1, 2  # exit statuses


def bounds_of(settings: WorkerSettings) -> Bounds:
    """How late the sweeps may be: three of their runs, and some minutes for what delays them."""
    minutes = timedelta(minutes=5)
    return Bounds(
        limits=settings.limits,
        overdue=3 * timedelta(seconds=settings.expire_interval_seconds) + minutes,
        undeleted=3 * timedelta(seconds=settings.delete_interval_seconds) + minutes,
    )


def table(findings: Sequence[Finding]) -> str:
    """One line each: the verdict, the promise, and which rows break it."""
    lines = []
    for finding in findings:
        verdict = "unknown" if finding.unknown else "BROKEN" if finding.broken else "holds"
        lines.append(f"{verdict:8} {finding.name:18} {finding.promise}")
        if finding.unknown:
            lines.append(f"{'':27} not checked: {finding.unknown}")
        lines += [f"{'':27} {row}" for row in finding.broken]
    return "\n".join(lines)


def main() -> None:
    """Check, and print."""
    logs.configure("WARNING")
    settings = WorkerSettings.load()
    engine = sync_engine(settings, "doctor", role=Role.AUDITOR)
    try:
        with engine.begin() as connection:
            findings = examine(connection, bounds_of(settings))
    except Exception as error:
        if not is_outage(error):
            raise
        sys.stderr.write("Postgres cannot be reached: is DATABASE_URL right, and the server up?\n")
        sys.exit(UNKNOWN)
    sys.stdout.write(table(findings) + "\n")
    if any(finding.broken for finding in findings):
        sys.exit(BROKEN)
    if any(finding.unknown for finding in findings):
        sys.exit(UNKNOWN)


if __name__ == "__main__":
    main()
