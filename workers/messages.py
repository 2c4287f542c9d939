"""What API, beat and workers call each other: names of tasks, queues and channels, and their payloads.

A message is a doorbell: it names accepted task ids and carries nothing else.
"""

from typing import Any, Final
from uuid import UUID

from db.lifecycle import Kind

SESSION_TASKS: Final = {kind: f"sessions.{kind}" for kind in Kind}
EXPIRE_SESSIONS: Final = "maintenance.expire_sessions"
DELETE_SESSIONS: Final = "maintenance.delete_sessions"
REDELIVER_TASKS: Final = "maintenance.redeliver_tasks"
PURGE_RECORDS: Final = "maintenance.purge_records"
CHECK_INVARIANTS: Final = "maintenance.check_invariants"
MAINTENANCE_TASKS: Final = frozenset(
    {EXPIRE_SESSIONS, DELETE_SESSIONS, REDELIVER_TASKS, PURGE_RECORDS, CHECK_INVARIANTS}
)

SESSIONS_QUEUE: Final = "sessions"
MAINTENANCE_QUEUE: Final = "maintenance"  # apart, so that a purge never delays a shopper

FINISHED_CHANNEL: Final = "checkout-sessions.finished"  # Redis pub/sub: ids of finished tasks, 16 bytes each

BATCH_LIMIT: Final = 256  # tasks in one message, and requests in one accept


def ids_of(named: Any) -> list[UUID] | None:
    """The ids that a doorbell names, or None: a message is untrusted."""
    try:
        return [UUID(task_id) for task_id in named] if isinstance(named, list) else None
    except (ValueError, TypeError, AttributeError):
        return None


def pack_ids(ids: list[UUID]) -> bytes:
    """Ids as the finished channel carries them."""
    return b"".join(task_id.bytes for task_id in ids)


def unpack_ids(packed: bytes) -> list[bytes]:
    """The ids' bytes in one word of the finished channel; what is left over is dropped, the word is a hint only."""
    return [packed[i : i + 16] for i in range(0, len(packed) - 15, 16)]
