"""Bring the database's schema up or down: `python -m db.migrate up|check|down [revision]`."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from sqlalchemy import Connection, NullPool, create_engine, make_url

from db.settings import DatabaseSettings

log = logging.getLogger("db.migrate")

USAGE: Final = "Usage: python -m db.migrate up | check | down [revision]"
ADVISORY_LOCK: Final = 0x636865636B6F7574  # "checkout": one migrator at a time
STARTING_SECONDS: Final = 30  # a server that replays its log after a crash is back within that
OTHER_MIGRATOR: Final = "10min"  # the longest that a migration of another machine is waited for
LOCK_TIMEOUT: Final = "5s"  # behind a long transaction; everyone else's statements queue up behind the migration
NOT_YET: Final = (
    "starting up",
    "refused",
    "No such file",
    "not accept",
    "timeout",
    "resolve",
    "shutting down",
    "closed",
)


@contextmanager
def migrating(*, alone: bool = True) -> Iterator[Connection]:
    """A connection in one transaction, with what a migration needs: the advisory lock, time, and patience for locks."""
    url = make_url(str(DatabaseSettings.load().database_url)).set(drivername="postgresql+psycopg")
    engine = create_engine(url, poolclass=NullPool, connect_args={"connect_timeout": 5, "prepare_threshold": None})
    with _connected(engine.connect) as connection, connection.begin():
        connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
        connection.exec_driver_sql("SET LOCAL TimeZone = 'UTC'")
        if alone:
            connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{OTHER_MIGRATOR}'")
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({ADVISORY_LOCK})")
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'")
        yield connection
