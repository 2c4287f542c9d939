"""The statements of maintenance: bounded, by an index, with the predicates repeated under the lock.

Each returns how many rows it touched; fewer than `limit` means that no more are due. Days are counted in one order, so
that two sweeps wait for each other but never both. A guard beside a look-up by id is written so that no index serves
it, as in db/statements.py.
"""

from datetime import timedelta
from uuid import UUID

from sqlalchemy import Connection, text

from db.lifecycle import Kind
from db.models import REFUSED_PAYMENT

# A shopper with a pending task is at work: neither sweep touches their sessions. OFFSET 0 keeps it a look-up of each
# user: a join with all that is pending only looks cheap while nothing is.
NOBODY_WAITS = """NOT EXISTS (
        SELECT FROM session_tasks AS t WHERE t.user_id = {session}.user_id AND t.state = 'PENDING' OFFSET 0
    )"""

# In the order of its index.
FIRST_PENDING = "SELECT true FROM session_tasks WHERE state = 'PENDING' ORDER BY user_id LIMIT 1"
_ANY_PENDING = text(FIRST_PENDING)

_EXPIRE = text(f"""
UPDATE checkout_sessions SET status = 'expired'
WHERE status IS NOT DISTINCT FROM 'active' AND expires_at <= now() AND ctid = ANY(ARRAY(
    SELECT s.ctid FROM checkout_sessions AS s
    WHERE s.status = 'active' AND s.expires_at <= now() AND {NOBODY_WAITS.format(session="s")}
    ORDER BY s.expires_at LIMIT :limit
    FOR NO KEY UPDATE SKIP LOCKED
))
""")  # noqa: S608 - constants of this module

_DELETABLE = "s.status = ANY('{active,expired,invalidated}') AND s.created_at <= now() - CAST(:retention AS interval)"
# By days in UTC, which is our connections' time zone (db/engine.py).
_COUNT_LINES = """INSERT INTO daily_counts AS d (day, lines_begun)
    SELECT line_began_at::date, count(*) FROM {gone} WHERE line_position = 0 GROUP BY 1 ORDER BY 1
    ON CONFLICT (day) DO UPDATE SET lines_begun = d.lines_begun + excluded.lines_begun"""

# For as long as nothing at all is pending: that must be looked at once more behind the locks.
_DELETE_ALL = text(f"""
WITH gone AS MATERIALIZED (
    SELECT s.ctid, s.line_position, s.line_began_at FROM checkout_sessions AS s WHERE {_DELETABLE}
        AND (({FIRST_PENDING}) IS NULL OR {NOBODY_WAITS.format(session="s")})
    LIMIT :limit
    FOR UPDATE SKIP LOCKED
), counted AS (
    {_COUNT_LINES.format(gone="gone")}
)
DELETE FROM checkout_sessions WHERE ctid = ANY(ARRAY(SELECT ctid FROM gone))
""")  # noqa: S608

_LOCK_DELETABLE = text(f"""
SELECT s.id FROM checkout_sessions AS s WHERE {_DELETABLE} AND {NOBODY_WAITS.format(session="s")}
LIMIT :limit
FOR UPDATE SKIP LOCKED
""")  # noqa: S608

# A second statement, with a snapshot of its own: a task accepted before the lock is seen here, one accepted after it
# waits for this transaction's end (statements.ACCEPT).
_DELETE = text(f"""
WITH gone AS (
    DELETE FROM checkout_sessions AS s
    WHERE s.id = ANY(:ids) AND s.status <> 'completed' AND s.created_at + CAST(:retention AS interval) <= now()
        AND {NOBODY_WAITS.format(session="s")}
    RETURNING s.line_position, s.line_began_at
), counted AS (
    {_COUNT_LINES.format(gone="gone")}
)
SELECT count(*) FROM gone
""")  # noqa: S608

# Each ring doubles the wait for the next, up to 16 times the interval: a long backlog is not rung for ever, and what
# only the sweep can save is done within a minute.
_RING_AGAIN = text("""
UPDATE session_tasks SET rings = rings + 1, due_at = now() + CAST(:interval AS interval) * power(2, least(rings, 4))
WHERE state IS NOT DISTINCT FROM 'PENDING' AND id = ANY(ARRAY(
    SELECT id FROM session_tasks
    WHERE finished_at IS NULL AND due_at <= now()
    ORDER BY due_at LIMIT :limit
    FOR NO KEY UPDATE SKIP LOCKED
))
RETURNING id, kind
""")

_PURGE_TASKS = text(f"""
WITH gone AS (
    DELETE FROM session_tasks
    WHERE id = ANY(ARRAY(
        SELECT id FROM session_tasks
        WHERE state <> 'PENDING' AND NOT ({REFUSED_PAYMENT}) AND finished_at <= now() - CAST(:retention AS interval)
        ORDER BY finished_at LIMIT :limit
        FOR UPDATE SKIP LOCKED
    ))
    RETURNING kind, state, addressed_status, finished_at
), counted AS (
    INSERT INTO daily_counts AS d (day, recoveries_finished, recoveries_succeeded)
    SELECT (finished_at AT TIME ZONE 'UTC')::date, count(*), count(*) FILTER (WHERE state = 'SUCCESS')
    FROM gone WHERE kind = 'recover' AND addressed_status IS DISTINCT FROM 'active' GROUP BY 1 ORDER BY 1
    ON CONFLICT (day) DO UPDATE SET
        recoveries_finished = d.recoveries_finished + excluded.recoveries_finished,
        recoveries_succeeded = d.recoveries_succeeded + excluded.recoveries_succeeded
)
SELECT count(*) FROM gone
""")  # noqa: S608

_PURGE_RUNS = text("""
DELETE FROM maintenance_runs WHERE id = ANY(ARRAY(
    SELECT id FROM maintenance_runs
    WHERE requested_at <= now() - CAST(:retention AS interval) ORDER BY requested_at LIMIT :limit
))
""")

_SHOPPERS_AT_WORK = text(f"""
SELECT coalesce(
    ({FIRST_PENDING}),
    (SELECT true FROM session_tasks
        WHERE state <> 'PENDING' AND NOT ({REFUSED_PAYMENT}) AND finished_at > now() - interval '1 s'
        ORDER BY finished_at LIMIT 1),
    false
)
""")  # noqa: S608

# Of the last hour only: who asked has long gone, and beat cleans up anyway.
_UNDONE_RUNS = text("""
SELECT task, id FROM maintenance_runs
WHERE trigger = 'http' AND finished_at IS NULL AND requested_at > now() - interval '1 hour'
    AND coalesce(began_at + interval '30 s', requested_at + interval '3 s') < now()
ORDER BY requested_at LIMIT 10
""")


def expire(connection: Connection, limit: int) -> int:
    """Mark overdue sessions as expired, oldest first."""
    return connection.execute(_EXPIRE, {"limit": limit}).rowcount


def delete(connection: Connection, limit: int, retention: timedelta) -> int:
    """Delete sessions past `retention` that are not completed; the lines that began with them are counted first."""
    if not _any_pending(connection):
        with connection.begin_nested() as all_at_once:
            done = connection.execute(_DELETE_ALL, {"limit": limit, "retention": retention}).rowcount
            if not _any_pending(connection):
                return done
            all_at_once.rollback()
    ids = list(connection.execute(_LOCK_DELETABLE, {"limit": limit, "retention": retention}).scalars())
    if not ids:
        return 0
    return int(connection.execute(_DELETE, {"ids": ids, "retention": retention}).scalar_one())


def _any_pending(connection: Connection) -> bool:
    return bool(connection.execute(_ANY_PENDING).scalar())


def ring_again(connection: Connection, limit: int, interval: timedelta) -> list[tuple[UUID, Kind]]:
    """Take the pending tasks whose doorbell is due, and set when it is due again."""
    rows = connection.execute(_RING_AGAIN, {"limit": limit, "interval": interval})
    return [(row.id, Kind(row.kind)) for row in rows]


def purge_tasks(connection: Connection, limit: int, retention: timedelta) -> int:
    """Delete records of finished tasks; their recoveries are counted first. Refused payments stay."""
    return int(connection.execute(_PURGE_TASKS, {"limit": limit, "retention": retention}).scalar_one())


def purge_runs(connection: Connection, limit: int, retention: timedelta) -> int:
    """Delete records of maintenance."""
    return connection.execute(_PURGE_RUNS, {"limit": limit, "retention": retention}).rowcount


def shoppers_at_work(connection: Connection) -> bool:
    """Whether a request is under way, or was a second ago."""
    return bool(connection.execute(_SHOPPERS_AT_WORK).scalar())


def undone_runs(connection: Connection) -> list[tuple[str, UUID]]:
    """Cleanups asked for over HTTP whose doorbell was lost, or whose worker died."""
    return [(row.task, row.id) for row in connection.execute(_UNDONE_RUNS)]
