"""What must hold in the tables at every instant, each as one statement that finds what breaks it.

The doctor asks a live database, the fault campaign its own. Bounded by the newest rows and by an index, so that a large
database is no slower than a small one.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any, Final

from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from db.engine import is_outage
from db.lifecycle import Limits
from db.models import REFUSED_PAYMENT
from db.sweeps import NOBODY_WAITS

EXAMPLES: Final = 20  # broken rows that are named; more are not counted


@dataclass(frozen=True, slots=True)
class Bounds:
    """Args:
    limits: the lengths of a session's life.
    rows: how many of the newest rows of each table are looked at.
    pending: how long a task may stay pending.
    overdue: how long an expiry may stay unmarked.
    undeleted: how long a session may outlive its retention.
    skew: how far the clocks of two transactions that waited for each other may seem to disagree.
    statement: how long one check may take; all together stay below the hard time limit of a Celery task.
    """

    limits: Limits
    rows: int = 20_000
    pending: timedelta = timedelta(minutes=5)
    overdue: timedelta = timedelta(minutes=5)
    undeleted: timedelta = timedelta(hours=3)
    skew: timedelta = timedelta(seconds=10)
    statement: timedelta = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class Finding:
    """What an invariant's statement found.

    `broken` are rows or users that break it, at most `EXAMPLES`; `unknown` is why it could not be checked.
    """

    name: str
    promise: str
    broken: list[str]
    unknown: str | None = None


_WINDOWS: Final = f"""
WITH s AS MATERIALIZED (SELECT * FROM checkout_sessions ORDER BY updated_at DESC LIMIT :rows),
t AS MATERIALIZED (
    SELECT * FROM session_tasks WHERE state <> 'PENDING' AND NOT ({REFUSED_PAYMENT})
    ORDER BY finished_at DESC LIMIT :rows
), refused AS MATERIALIZED (
    SELECT * FROM session_tasks WHERE {REFUSED_PAYMENT} ORDER BY finished_at DESC LIMIT :rows
), kept AS MATERIALIZED (
    -- Older tasks are purged, and sessions taken over from an older table never had one.
    SELECT min(finished_at) AS since FROM session_tasks WHERE state <> 'PENDING' AND NOT ({REFUSED_PAYMENT})
)
"""  # noqa: S608 - constants of this module and of the models

# Name -> (promise, what breaks it). A session and its task share the transaction that wrote both, so its clock.
# OFFSET 0 keeps a look-up of each row one, also where statistics are missing.
INVARIANTS: Final[Mapping[str, tuple[str, str]]] = {
    "one_active": (
        "a user has at most one active session",
        """s.user_id FROM s JOIN checkout_sessions AS o
            ON o.user_id = s.user_id AND o.status = 'active' AND o.id <> s.id
        WHERE s.status = 'active'""",
    ),
    "one_completion": (
        "a line completes once",
        """s.line_id FROM s JOIN checkout_sessions AS o
            ON o.line_id = s.line_id AND o.status = 'completed' AND o.id <> s.id
        WHERE s.status = 'completed'""",
    ),
    "one_payment": (
        "a payment reference completes one session",
        """s.payment_reference FROM s JOIN checkout_sessions AS o
            ON o.payment_reference = s.payment_reference AND o.id <> s.id
        WHERE s.payment_reference IS NOT NULL""",
    ),
    "completed_is_paid": (
        "a completed session, and no other, has a payment reference and a time",
        """s.id FROM s WHERE (s.status = 'completed') <> (s.payment_reference IS NOT NULL)
            OR (s.status = 'completed') <> (s.completed_at IS NOT NULL)""",
    ),
    "no_forks": (
        "a line has one member at each position, and only the newest is active",
        """s.id FROM s JOIN checkout_sessions AS o ON o.line_id = s.line_id AND o.id <> s.id
        WHERE o.line_position = s.line_position OR (s.status = 'active' AND o.line_position > s.line_position)""",
    ),
    "no_gaps": (
        "each session follows the one before it in its line, so lines have neither gaps nor loops",
        """s.id FROM s LEFT JOIN checkout_sessions AS p ON p.id = s.previous_session_id
        WHERE s.line_position > 0 AND CASE WHEN p.id IS NULL THEN s.line_began_at > now() - CAST(:retention AS interval)
            ELSE (p.line_id, p.user_id, p.line_position + 1) <> (s.line_id, s.user_id, s.line_position) END
            OR (s.line_position = 0) <> (s.line_id = s.id)""",
    ),
    "sane_times": (
        "nothing happens before what it follows",
        """s.id FROM s WHERE s.expires_at <= s.created_at OR s.created_at > now() + :skew
            OR least(s.updated_at, s.completed_at) < s.created_at - CAST(:skew AS interval)
        UNION ALL SELECT t.id FROM t WHERE t.finished_at < t.accepted_at - CAST(:skew AS interval)""",
    ),
    "made_once": (
        "each session was made by a task that finished in the same transaction",
        """s.id FROM s, kept WHERE s.created_at >= kept.since AND NOT EXISTS (
            SELECT FROM session_tasks AS m
            WHERE m.finished_at = s.created_at AND m.state = 'SUCCESS' AND m.kind <> 'complete'
                AND m.result_session_id = s.id OFFSET 0)""",
    ),
    "completed_once": (
        "each completion was asked for in time, and decided in the same transaction",
        """s.id FROM s, kept WHERE s.status = 'completed' AND s.completed_at >= kept.since AND NOT EXISTS (
            SELECT FROM session_tasks AS m
            WHERE m.finished_at = s.completed_at AND m.state = 'SUCCESS' AND m.kind = 'complete'
                AND m.result_session_id = s.id AND m.payload ->> 'payment_reference' = s.payment_reference
                AND m.accepted_at < s.expires_at OFFSET 0)""",
    ),
    "success_is_there": (
        "what was answered as done is there: the session of a task that succeeded",
        """t.id FROM t LEFT JOIN checkout_sessions AS r ON r.id = t.result_session_id AND r.user_id = t.user_id
        WHERE t.state = 'SUCCESS' AND CASE
            WHEN t.kind = 'complete' THEN (r.status, r.payment_reference)
                IS DISTINCT FROM ('completed', t.payload ->> 'payment_reference')
            WHEN r.id IS NULL THEN t.finished_at > now() - CAST(:retention AS interval) + CAST(:ttl AS interval)
            WHEN t.kind = 'recover' THEN r.created_at > t.finished_at + CAST(:skew AS interval)
            ELSE r.created_at <> t.finished_at OR (t.kind = 'create' AND r.id <> t.session_id) END""",
    ),
    "refused_honestly": (
        "a refusal is true: an order that is called complete is, a payment was used elsewhere or came too late",
        """t.id FROM t WHERE t.refusal = 'already_completed' AND NOT EXISTS (
            SELECT FROM checkout_sessions AS r WHERE r.id = t.result_session_id AND r.status = 'completed')
        UNION ALL
        SELECT refused.id FROM refused LEFT JOIN checkout_sessions AS r
            ON r.id = refused.result_session_id AND r.user_id = refused.user_id
        WHERE CASE refused.refusal
            WHEN 'already_completed' THEN r.status IS DISTINCT FROM 'completed'
                OR r.payment_reference = refused.payload ->> 'payment_reference'
            WHEN 'payment_reference_used' THEN NOT EXISTS (
                SELECT FROM checkout_sessions AS h WHERE h.payment_reference = refused.payload ->> 'payment_reference')
            WHEN 'session_expired' THEN refused.accepted_at < r.expires_at
            WHEN 'session_not_found' THEN r.created_at < refused.accepted_at - CAST(:skew AS interval)
            ELSE false END""",
    ),
    "finished_in_time": (
        "no accepted task stays pending for long",
        """id FROM (
            SELECT id, accepted_at FROM session_tasks WHERE finished_at IS NULL ORDER BY due_at LIMIT :rows
        ) AS p WHERE p.accepted_at < now() - CAST(:pending AS interval)""",
    ),
    "expired_in_time": (
        "what is overdue is marked, unless its user has a task pending",
        f"""o.id FROM checkout_sessions AS o
        WHERE o.status = 'active' AND o.expires_at < now() - CAST(:overdue AS interval)
            AND {NOBODY_WAITS.format(session="o")}""",
    ),
    "deleted_in_time": (
        "what outlived its retention is deleted, unless its user has a task pending",
        f"""o.id FROM checkout_sessions AS o
        WHERE o.status = ANY('{{active,expired,invalidated}}')
            AND o.created_at < now() - CAST(:retention AS interval) - CAST(:undeleted AS interval)
            AND {NOBODY_WAITS.format(session="o")}""",
    ),
}


def examine(connection: Connection, bounds: Bounds) -> list[Finding]:
    """Check each invariant, in the read-only transaction that this begins."""
    connection.execute(text("SET TRANSACTION READ ONLY"))
    milliseconds = round(bounds.statement.total_seconds() * 1000)
    connection.execute(text(f"SET LOCAL statement_timeout = {milliseconds}"))
    parameters = {
        **asdict(bounds),
        "retention": bounds.limits.retention,
        "ttl": bounds.limits.ttl,
        "examples": EXAMPLES,
    }
    return [_finding(connection, name, promise, broken, parameters) for name, (promise, broken) in INVARIANTS.items()]


def _finding(connection: Connection, name: str, promise: str, broken: str, parameters: dict[str, Any]) -> Finding:
    try:
        with connection.begin_nested():
            rows = connection.execute(text(f"{_WINDOWS} SELECT {broken} LIMIT :examples"), parameters).scalars()
            return Finding(name, promise, [str(row) for row in rows])
    except DBAPIError as error:
        if is_outage(error):
            raise
        return Finding(name, promise, [], type(error.orig).__name__)
