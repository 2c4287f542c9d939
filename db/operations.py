"""What operators do by hand: take up what was given up, and list which payments to give back."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import Connection, text

from db.lifecycle import Kind
from db.models import REFUSED_PAYMENT

# An outcome that was told never changes, so a retry is a new task of the same content. Its key makes it one, however
# often it is asked for. A completion keeps the time of its acceptance: money was taken then.
_RETRY = text("""
INSERT INTO session_tasks (
    id, kind, user_id, session_id, payload, idempotency_key, request_hash, request_id, accepted_at
)
SELECT :new_id, kind, user_id, session_id, payload, 'retry of ' || id, '', request_id,
    CASE WHEN kind = 'complete' THEN accepted_at ELSE now() END
FROM session_tasks WHERE id = :task_id AND refusal = 'gave_up'
ON CONFLICT DO NOTHING
""")

_RETRIED = text("""
SELECT new.id, new.kind FROM session_tasks AS old
JOIN session_tasks AS new ON new.user_id = old.user_id AND new.idempotency_key = 'retry of ' || old.id
WHERE old.id = :task_id
""")

_REFUNDS = text(f"""
SELECT t.finished_at, t.user_id, t.session_id, t.payload ->> 'payment_reference' AS payment_reference, t.refusal, t.id
FROM session_tasks AS t
WHERE {REFUSED_PAYMENT}
    AND NOT EXISTS (
        SELECT FROM checkout_sessions AS s WHERE s.payment_reference = t.payload ->> 'payment_reference'
    )
    AND NOT EXISTS (
        SELECT FROM session_tasks AS p
        WHERE p.user_id = t.user_id AND p.state = 'PENDING'
            AND p.payload ->> 'payment_reference' = t.payload ->> 'payment_reference'
    )
ORDER BY t.finished_at DESC
LIMIT :limit
""")  # noqa: S608 - a constant of the models


@dataclass(frozen=True, slots=True)
class Refund:
    """A payment that was refused, and that no session holds."""

    refused_at: datetime
    user_id: str
    session_id: UUID
    payment_reference: str
    refusal: str
    task_id: UUID


def retry(connection: Connection, task_id: UUID, new_id: UUID) -> tuple[UUID, Kind] | None:
    """Accept what was given up once more, as a new task; the one that took it up before, if there is one.

    Returns:
        The new task, or None if the old one was not given up.
    """
    connection.execute(_RETRY, {"task_id": task_id, "new_id": new_id})
    row = connection.execute(_RETRIED, {"task_id": task_id}).one_or_none()
    return (row.id, Kind(row.kind)) if row else None


def refunds(connection: Connection, limit: int) -> list[Refund]:
    """The newest first."""
    return [Refund(*row) for row in connection.execute(_REFUNDS, {"limit": limit})]
