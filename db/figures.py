"""The mission's four figures, and what else operators watch; exact also after deletion (see `DailyCount`)."""

from dataclasses import dataclass
from datetime import date

from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncConnection

_FIGURES = text("""
SELECT
    (SELECT count(*) FROM checkout_sessions WHERE status = 'active' AND expires_at > now()) AS active_sessions,
    (SELECT count(*) FROM session_tasks WHERE state = 'PENDING') AS pending,
    (SELECT coalesce(extract(epoch FROM now() - min(accepted_at)), 0)
        FROM (SELECT accepted_at FROM session_tasks WHERE finished_at IS NULL ORDER BY due_at LIMIT 1000) AS oldest
    ) AS oldest_pending_seconds,
    (SELECT coalesce(extract(epoch FROM now() - min(expires_at)), 0)
        FROM checkout_sessions WHERE status = 'active' AND expires_at <= now()) AS oldest_overdue_seconds,
    (SELECT count(*) FROM maintenance_runs
        WHERE requested_at > now() - interval '24 hours' AND finished_at IS NOT NULL AND error IS NULL
            AND task IN ('maintenance.expire_sessions', 'maintenance.delete_sessions')) AS cleanups_24h,
    (SELECT coalesce(extract(epoch FROM now() - max(finished_at)), -1) FROM maintenance_runs
        WHERE requested_at > now() - interval '7 days' AND error IS NULL AND task = 'maintenance.expire_sessions'
    ) AS last_expiry_seconds,
    (SELECT count(*) FROM session_tasks
        WHERE refusal = 'gave_up' AND finished_at > now() - interval '24 hours') AS given_up_24h,
    (SELECT rows FROM maintenance_runs
        WHERE finished_at IS NOT NULL AND error IS NULL AND task = 'maintenance.check_invariants'
        ORDER BY requested_at DESC LIMIT 1) AS invariant_breaches
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
class Figures:
    """Args:
    active_sessions: now.
    completion_rate: lines completed / lines begun, of those begun since `since`; None if there were none.
    recovery_success_rate: recoveries that gave a session / finished ones addressed to a session not active.
    cleanups_24h: successful runs of expiry and deletion in the last 24 hours.
    given_up_24h: tasks whose executions all failed, finished in the last 24 hours.
    invariant_breaches: rows that the doctor's last run found broken; None if it never ran.
    """

    active_sessions: int
    completion_rate: float | None
    recovery_success_rate: float | None
    cleanups_24h: int
    pending: int
    oldest_pending_seconds: float
    oldest_overdue_seconds: float
    last_expiry_seconds: float
    given_up_24h: int
    invariant_breaches: int | None


async def figures(connection: AsyncConnection, since: date) -> Figures:
    """Count. A few index scans; to be called some times a minute, not with each request.

    Args:
        since: the first day, of UTC, that the two rates count.
    """
    return await connection.run_sync(_figures, since)


def _figures(connection: Connection, since: date) -> Figures:
    now = connection.execute(_FIGURES).one()
    begun = completed = finished = succeeded = 0
    for row in connection.execute(_LINES, {"since": since}):
        begun, completed = begun + row.begun, completed + row.completed
    for row in connection.execute(_RECOVERIES, {"since": since}):
        finished, succeeded = finished + row.finished, succeeded + row.succeeded
    return Figures(
        active_sessions=now.active_sessions,
        completion_rate=completed / begun if begun else None,
        recovery_success_rate=succeeded / finished if finished else None,
        cleanups_24h=now.cleanups_24h,
        pending=now.pending,
        oldest_pending_seconds=float(now.oldest_pending_seconds),
        oldest_overdue_seconds=float(now.oldest_overdue_seconds),
        last_expiry_seconds=float(now.last_expiry_seconds),
        given_up_24h=now.given_up_24h,
        invariant_breaches=now.invariant_breaches,
    )
