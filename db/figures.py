"""The mission's four figures, exact also after deletion (see `DailyCount`)."""

from dataclasses import dataclass, replace
from datetime import date

from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncConnection

_NOW = text("""
SELECT
    (SELECT count(*) FROM checkout_sessions WHERE status = 'active' AND expires_at > now()) AS active_sessions,
    (SELECT count(*) FROM maintenance_runs
        WHERE requested_at > now() - interval '24 hours' AND finished_at IS NOT NULL AND error IS NULL
            AND task IN ('maintenance.expire_sessions', 'maintenance.delete_sessions')) AS cleanups_24h
""")

_LINES = text("""
SELECT day, sum(begun)::bigint AS begun, sum(completed)::bigint AS completed
FROM (
    SELECT day, lines_begun AS begun, 0 AS completed FROM daily_counts WHERE day >= :since
    UNION ALL
    SELECT (created_at AT TIME ZONE 'UTC')::date, 1, 0 FROM checkout_sessions
    WHERE created_at >= :since AND line_position = 0
    UNION ALL
    SELECT (line_began_at AT TIME ZONE 'UTC')::date, 0, 1 FROM checkout_sessions
    WHERE status = 'completed' AND created_at >= :since AND line_began_at >= :since
) AS counted
GROUP BY day ORDER BY day
""")

_RECOVERIES = text("""
SELECT day, sum(finished)::bigint AS finished, sum(succeeded)::bigint AS succeeded
FROM (
    SELECT day, recoveries_finished AS finished, recoveries_succeeded AS succeeded
    FROM daily_counts WHERE day >= :since
    UNION ALL
    SELECT (finished_at AT TIME ZONE 'UTC')::date, 1, (state = 'SUCCESS')::int FROM session_tasks
    WHERE state <> 'PENDING' AND NOT (kind = 'complete' AND state = 'FAILURE') AND finished_at >= :since
        AND kind = 'recover' AND addressed_status IS DISTINCT FROM 'active'
) AS counted
GROUP BY day ORDER BY day
""")


@dataclass(frozen=True, slots=True)
class Day:
    """A day (UTC) as the two rates count it: lines by the day begun, recoveries by the day finished."""

    begun: int = 0
    completed: int = 0
    recoveries: int = 0
    recovered: int = 0


@dataclass(frozen=True, slots=True)
class Figures:
    """Args:
    active_sessions: now.
    cleanups_24h: successful runs of expiry and deletion in the last 24 hours.
    days: what the two rates count, by day.
    """

    active_sessions: int
    cleanups_24h: int
    days: dict[date, Day]

    @property
    def completion_rate(self) -> float | None:
        """Lines completed / lines begun, of those begun in these days; None if there were none."""
        return _ratio(sum(d.completed for d in self.days.values()), sum(d.begun for d in self.days.values()))

    @property
    def recovery_success_rate(self) -> float | None:
        """Recoveries that gave a session / finished ones addressed to a session not active; None if none."""
        return _ratio(sum(d.recovered for d in self.days.values()), sum(d.recoveries for d in self.days.values()))


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None


async def figures(connection: AsyncConnection, since: date) -> Figures:
    """Count. It reads all that was begun since, so it is not to be asked with each request.

    Args:
        since: the first day, of UTC, that the two rates count.
    """
    return await connection.run_sync(figures_now, since)


def figures_now(connection: Connection, since: date) -> Figures:
    """The same, on a connection that waits."""
    now = connection.execute(_NOW).one()
    days = {row.day: Day(row.begun, row.completed) for row in connection.execute(_LINES, {"since": since})}
    for row in connection.execute(_RECOVERIES, {"since": since}):
        days[row.day] = replace(days.get(row.day, Day()), recoveries=row.finished, recovered=row.succeeded)
    return Figures(now.active_sessions, now.cleanups_24h, days)
