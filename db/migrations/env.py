"""Alembic's entry: runs on the connection that `db.migrate` hands over, or on one of its own for the `alembic` command.

It configures no logging, so that no logger of the caller is disabled.
"""

from typing import Any

from alembic import context
from sqlalchemy import Connection

from db.migrate import migrating
from db.models import Base


def _ours(_object: Any, name: str | None, kind: str, _reflected: bool, _compared: Any) -> bool:
    """Tables that no model names are another's: `--autogenerate` does not propose to drop them."""
    return kind != "table" or name in Base.metadata.tables


def _run(connection: Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        compare_server_default=True,
        include_object=_ours,
    )
    with context.begin_transaction():
        context.run_migrations()


if context.is_offline_mode():
    raise SystemExit("Migrations inspect the database: there is no offline mode.")
if (handed := context.config.attributes.get("connection")) is not None:
    _run(handed)
else:
    with migrating() as own:
        _run(own)
