"""A big table of sessions, made by SQL in minutes, as a shop of two years has it.

A fifth of the sessions are of the last seven days; of the older ones only the completed are left, which stay for ever.
Each user comes back four times. Of the last week's, four in ten are completed, some of the last day's are active, the
others `expired` or `invalidated`; one in six took the place of another, which is there. Each has the finished tasks
that made it. Nothing is overdue, nothing is due for deletion.
"""

import time
from collections.abc import Callable
from typing import Any

import psycopg

from benchmarks.servers import libpq

PIECE = 1_000_000  # rows in one statement

# Nothing is left to chance: the same rows each time. `n` counts from the oldest; an id is a UUIDv7 of its row's time.
SESSIONS = """
INSERT INTO checkout_sessions (
    id, user_id, status, package, step, data, origin, line_id, line_position, line_began_at, previous_session_id,
    payment_reference, created_at, updated_at, expires_at, completed_at
)
SELECT ids[1 + member], 'bulk-' || lpad((n %% %(users)s)::text, 8, '0'), status, 'family-' || n %% 7, 'details',
    jsonb_build_object('adults', 1 + n %% 3, 'children', n %% 4, 'coupon', 'SPRING', 'newsletter', n %% 2 = 0),
    CASE member WHEN 0 THEN 'created' ELSE 'renewed' END, ids[1], member, times[1], CASE member WHEN 1 THEN ids[1] END,
    CASE WHEN status = 'completed' THEN 'payment-' || n END, times[1 + member], times[1 + member],
    times[1 + member] + interval '1 day', CASE WHEN status = 'completed' THEN times[1 + member] + interval '7 min' END
FROM (
    SELECT n, last, member, times, ARRAY(
        SELECT (lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0')
            || '7' || substr(md5(n || ' ' || at), 1, 3) || '8' || substr(md5(n || ' ' || at), 4, 15))::uuid
        FROM unnest(times) AS at
    ) AS ids, CASE
        WHEN member < last THEN 'invalidated'
        WHEN n <= %(old)s OR n %% 10 < 4 THEN 'completed'
        WHEN times[1] > now() - interval '23 hours' AND n > %(rows)s - %(users)s AND n %% 10 < 7 THEN 'active'
        WHEN n %% 10 < 9 THEN 'expired'
        ELSE 'invalidated'
    END AS status
    FROM (
        SELECT n, (n %% 6 = 0)::int AS last, ARRAY[at - (n %% 6 = 0)::int * interval '5 min', at] AS times
        FROM (
            SELECT n, now() - CASE
                WHEN n <= %(old)s THEN interval '8 days' + interval '700 days' * (1 - n::float8 / %(old)s)
                ELSE interval '6 days 20 hours' * ((%(rows)s - n)::float8 / (%(rows)s - %(old)s)) + interval '10 min'
            END AS at
            FROM generate_series(%(first)s::bigint, %(to)s) AS n
        ) AS aged
    ) AS lines
    CROSS JOIN LATERAL generate_series(CASE WHEN n <= %(old)s THEN last ELSE 0 END, last) AS member
) AS made
"""
TASKS = """
INSERT INTO session_tasks (
    id, kind, user_id, session_id, payload, request_id, state, accepted_at, due_at, finished_at, result_session_id,
    worker
)
SELECT gen_random_uuid(), task.kind, user_id, id,
    CASE task.kind WHEN 'complete' THEN jsonb_build_object('payment_reference', payment_reference)
        ELSE jsonb_build_object('package', package, 'step', step, 'data', data) END,
    gen_random_uuid()::text, 'SUCCESS', created_at, created_at, created_at + interval '5 ms', id, 'worker:1'
FROM checkout_sessions
CROSS JOIN LATERAL (
    SELECT CASE line_position WHEN 0 THEN 'create' ELSE 'renew' END AS kind
    UNION ALL SELECT 'complete' WHERE status = 'completed'
) AS task
WHERE created_at > now() - interval '7 days'
ORDER BY created_at
"""


def fill(database_url: str, rows: int) -> float:
    """Put about that many sessions into the database, and the tasks they came of.

    Indexes are taken away meanwhile and made again, which is many times faster.

    Returns:
        How many seconds it took.
    """
    began = time.monotonic()
    with psycopg.connect(libpq(database_url), autocommit=True) as connection:
        if rows:
            connection.execute("SET synchronous_commit = off")
            connection.execute("SET maintenance_work_mem = '1GB'")
            indexes = _indexes(connection)
            for name, _ in indexes:
                connection.execute(f"DROP INDEX {name}")
            values = {"rows": rows, "users": max(rows // 4, 1), "old": rows - rows // 5}
            for first in range(1, rows + 1, PIECE):
                connection.execute(SESSIONS, {**values, "first": first, "to": min(first + PIECE - 1, rows)})
            connection.execute(TASKS)
            for _, definition in indexes:
                connection.execute(definition)
        connection.execute("VACUUM (FREEZE, ANALYZE)")
    return time.monotonic() - began


def _indexes(connection: psycopg.Connection[Any]) -> list[tuple[str, str]]:
    """Names and definitions of all but the primary keys."""
    query = """
        SELECT indexname, indexdef FROM pg_indexes
        WHERE tablename IN ('checkout_sessions', 'session_tasks') AND indexname NOT LIKE 'pk_%'
    """
    return connection.execute(query).fetchall()


def sizes(database_url: str) -> dict[str, int]:
    """Bytes of each table, and of its indexes together."""
    query = """
        SELECT relname, pg_table_size(oid), pg_indexes_size(oid) FROM pg_class
        WHERE relname IN ('checkout_sessions', 'session_tasks') AND relkind = 'r'
    """
    with psycopg.connect(libpq(database_url)) as connection:
        rows = connection.execute(query).fetchall()
    return {f"{name}{part}": size for name, *both in rows for part, size in zip(("", " indexes"), both, strict=True)}


def requests_for(database_url: str, query: str, request: Callable[..., str], limit: int) -> list[str]:
    """A request for each row that the query finds, in random order."""
    with psycopg.connect(libpq(database_url)) as connection:
        connection.execute("SELECT setseed(0.5)")
        return [request(*row) for row in connection.execute(f"{query} ORDER BY random() LIMIT {limit}")]
