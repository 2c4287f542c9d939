"""What operators watch from minute to minute: a few index scans, bounded, so that they may be asked every second."""

from typing import Final

PENDING_LIMIT: Final = 200_000  # pending tasks that are counted; twice the default of BACKLOG_LIMIT
OVERDUE_LIMIT: Final = 10_000
GIVEN_UP_LIMIT: Final = 1_000
LAG_SECONDS: Final = 5  # a task is counted that long after it finished: by then its transaction is committed
CATCH_UP_SECONDS: Final = 60  # what finished earlier, while nobody looked, is not counted: 300000 tasks take a second
WAITS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)  # seconds
SIZES: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)  # tasks
SPAN: Final = {"catch_up": CATCH_UP_SECONDS, "lag": LAG_SECONDS, "waits": list(WAITS), "sizes": list(SIZES)}

# One row.
VITALS = """
SELECT pending.*, overdue.*,
    (SELECT count(*) FROM (
        SELECT FROM session_tasks WHERE refusal = 'gave_up' AND finished_at > now() - interval '24 hours'
        ORDER BY finished_at LIMIT %(given_up_limit)s
    ) AS faults) AS given_up_24h,
    current_setting('max_connections')::int AS connections_limit,
    (SELECT sum(numbackends)::bigint FROM pg_stat_database) AS connections  -- pg_stat_activity hides other logins'
FROM (
    SELECT count(*) AS pending,
        coalesce(extract(epoch FROM now() - min(accepted_at)), 0)::float AS oldest_pending_seconds,
        count(*) FILTER (WHERE rings > 1) AS rung_again,
        coalesce(max(attempts), 0) AS attempts
    FROM (
        SELECT accepted_at, rings, attempts FROM session_tasks
        WHERE finished_at IS NULL ORDER BY due_at LIMIT %(pending_limit)s
    ) AS waiting
) AS pending, (
    SELECT count(*) AS overdue,
        coalesce(extract(epoch FROM now() - min(expires_at)), 0)::float AS oldest_overdue_seconds
    FROM (
        SELECT expires_at FROM checkout_sessions
        WHERE status = 'active' AND expires_at <= now() ORDER BY expires_at LIMIT %(overdue_limit)s
    ) AS unmarked
) AS overdue
"""

# A row for each maintenance task that ever ran, as far as its records are kept: since when, seconds and rows of its
# last success (NULL if none), whether its last finished run failed, and its runs of 24 hours.
MAINTENANCE = """
SELECT names.task,
    (extract(epoch FROM now() - success.finished_at))::float,
    (extract(epoch FROM success.finished_at - success.began_at))::float,
    success.rows, latest.error IS NOT NULL, day.succeeded, day.failed
FROM unnest(%(tasks)s::text[]) AS names(task)
CROSS JOIN LATERAL (
    SELECT error FROM maintenance_runs
    WHERE task = names.task AND finished_at IS NOT NULL ORDER BY requested_at DESC LIMIT 1
) AS latest
LEFT JOIN LATERAL (
    SELECT finished_at, began_at, rows FROM maintenance_runs
    WHERE task = names.task AND finished_at IS NOT NULL AND error IS NULL ORDER BY requested_at DESC LIMIT 1
) AS success ON true
CROSS JOIN LATERAL (
    SELECT count(*) FILTER (WHERE error IS NULL) AS succeeded, count(*) FILTER (WHERE error IS NOT NULL) AS failed
    FROM maintenance_runs
    WHERE task = names.task AND requested_at > now() - interval '24 hours' AND finished_at IS NOT NULL
) AS day
"""

_FINISHED = """
WITH span AS MATERIALIZED (
    SELECT greatest(coalesce(%(since)s::timestamptz, now()), now() - make_interval(secs => %(catch_up)s)) AS since,
        now() - make_interval(secs => %(lag)s) AS until
), done AS MATERIALIZED (
    SELECT kind, refusal, rings, celery_task_id, finished_at, extract(epoch FROM finished_at - accepted_at) AS seconds
    FROM session_tasks
    WHERE state <> 'PENDING' AND NOT (kind = 'complete' AND state = 'FAILURE')
        AND finished_at > (SELECT since FROM span) AND finished_at <= (SELECT until FROM span)
    UNION ALL
    SELECT kind, refusal, rings, celery_task_id, finished_at, extract(epoch FROM finished_at - accepted_at)
    FROM session_tasks
    WHERE kind = 'complete' AND state = 'FAILURE'
        AND finished_at > (SELECT since FROM span) AND finished_at <= (SELECT until FROM span)
)
"""

# What finished since `since`, aggregated: the measure, its labels, the bucket, how many, and their sum. With a last row
# that says up to when, for the next time. A batch is what one transaction of a worker finished; half a task less puts
# its size into the bucket that it bounds.
FINISHED = f"""{_FINISHED}
SELECT 'wait', kind, '', width_bucket(seconds::float, %(waits)s::float[]), count(*), sum(seconds)::float,
    NULL::timestamptz
FROM done GROUP BY kind, 4
UNION ALL
SELECT 'outcome', kind, coalesce(refusal, 'success'), 0, count(*), sum(rings - 1)::float, NULL
FROM done GROUP BY kind, refusal
UNION ALL
SELECT 'batch', '', '', width_bucket(size - 0.5, %(sizes)s::numeric[]), count(*), sum(size)::float, NULL
FROM (SELECT count(*) AS size FROM done GROUP BY celery_task_id, finished_at) AS batches GROUP BY 4
UNION ALL
SELECT 'until', '', '', 0, 0, 0, greatest(since, until) FROM span
"""  # noqa: S608 - constants of this module
