"""Bring the database's schema up or down: `python -m db.migrate up | check | down [revision]`.

Each command is one transaction: it happens whole or not at all.
"""

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from psycopg.errors import LockNotAvailable
from sqlalchemy import Connection, Engine, NullPool, create_engine
from sqlalchemy.exc import DBAPIError, OperationalError

from db.engine import database_url
from db.migrations.drift import differences
from db.settings import DatabaseSettings

log = logging.getLogger("db.migrate")

USAGE: Final = "Usage: python -m db.migrate up | check | down [revision]"
ADVISORY_LOCK: Final = int.from_bytes(b"checkout")  # one migrator at a time
OTHER_MIGRATOR: Final = "10min"  # the longest that another one is waited for
LOCK_TIMEOUT: Final = "5s"  # for a table in use: all other statements on it queue up behind the one that waits
STARTING_SECONDS: Final = 30.0  # a server that starts, or replays its log after a crash, is there within that
FINAL_WORDS: Final = ("authentication failed", "does not exist", "pg_hba.conf", "permission denied", "no password")


@contextmanager
def migrating() -> Iterator[Connection]:
    """A connection within one transaction that no other migrator runs beside, committed at the end."""
    engine = create_engine(
        database_url(DatabaseSettings.load()),
        poolclass=NullPool,
        connect_args={"connect_timeout": 5, "prepare_threshold": None, "application_name": "checkout-sessions migrate"},
    )
    with _connected(engine) as connection, connection.begin():
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{OTHER_MIGRATOR}'")
        connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({ADVISORY_LOCK})")
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'")
        connection.exec_driver_sql("SET LOCAL timezone = 'UTC'")
        connection.exec_driver_sql("SET LOCAL work_mem = '64MB'")
        connection.exec_driver_sql("SET LOCAL maintenance_work_mem = '256MB'")
        yield connection


def _connected(engine: Engine) -> Connection:
    """Connect, waiting a while for a server that still starts."""
    deadline = time.monotonic() + STARTING_SECONDS
    pause = 0.1
    while True:
        try:
            return engine.connect()
        except OperationalError as error:
            if time.monotonic() > deadline or any(words in str(error.orig) for words in FINAL_WORDS):
                raise
        time.sleep(pause)
        pause = min(2 * pause, 2.0)


def configuration(connection: Connection) -> Config:
    """Alembic's settings, in code: they need neither a file nor a certain working directory."""
    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


def up(connection: Connection) -> None:
    """Bring the schema to the newest revision."""
    command.upgrade(configuration(connection), "head")


def down(connection: Connection, revision: str = "-1") -> None:
    """Take the schema back to `revision`, by default one step; `base` is before the first."""
    command.downgrade(configuration(connection), revision)


def current(connection: Connection) -> str | None:
    """The database's revision."""
    return MigrationContext.configure(connection).get_current_revision()


def problems(connection: Connection) -> list[str]:
    """What is wrong with the schema, a sentence each."""
    newest = ScriptDirectory.from_config(configuration(connection)).get_current_head()
    if current(connection) != newest:
        return [f"The database is at revision {current(connection) or 'base'}, the code at {newest}: migrate it up."]
    return [*differences(connection)]


def main(arguments: list[str]) -> str | None:
    """Run one command.

    Returns:
        The sentence that says what went wrong, if anything did.
    """
    match arguments:
        case ["up" | "check" | "down"] | ["down", _]:
            pass
        case _:
            return USAGE
    try:
        with migrating() as connection:
            return _run(connection, *arguments)
    except CommandError as error:
        return f"The migration cannot run: {error}."
    except DBAPIError as error:
        said = " ".join(str(error.orig).split())
        if error.statement is None:
            return f"No connection to the database: {said}"
        if isinstance(error.orig, LockNotAvailable):
            return "A table, or another migration, is in use by a long transaction: nothing was changed, run it again."
        return f"The database refused, and nothing was changed: {said}"


def _run(connection: Connection, name: str, revision: str = "-1") -> str | None:
    match name:
        case "up":
            up(connection)
        case "down":
            if current(connection) is None:
                return "There is nothing to take down."
            down(connection, revision)
        case _:
            return "\n".join(problems(connection)) or None
    log.info("The schema is at revision %s.", current(connection) or "base")
    return None


if __name__ == "__main__":
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    sys.exit(main(sys.argv[1:]))
