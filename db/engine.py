"""Connections to Postgres: one login, and the role that each connection takes when it connects."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import orjson
import psycopg
from psycopg import AsyncConnection, Connection
from psycopg.types.json import set_json_loads
from sqlalchemy import URL, ClauseElement, Engine, create_engine, make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as SQLAlchemyTimeoutError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from db.access import Role
from db.settings import DatabaseSettings

# Bounds on the server's side, in milliseconds: no statement outlives the shopper's patience, no forgotten transaction
# holds a lock. The statements are planned once per connection, for any number of rows; they must go by an index even
# where the statistics of a young table say otherwise, since the plan outlives them. A bitmap collects all that is due
# before a LIMIT takes its first row.
OPTIONS = {
    "statement_timeout": "5000",
    "lock_timeout": "2000",
    "idle_in_transaction_session_timeout": "10000",
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
    "plan_cache_mode": "force_generic_plan",
    "jit": "off",
    "timezone": "UTC",
}


def database_url(settings: DatabaseSettings) -> URL:
    """The URL as SQLAlchemy wants it, whichever of the usual spellings was given."""
    return make_url(str(settings.database_url)).set(drivername="postgresql+psycopg")


def _connect_args(name: str, role: Role | None, **options: str) -> dict[str, Any]:
    """Startup options cost nothing afterwards, and RESET goes back to them: `RESET ROLE` to the role."""
    options = {**OPTIONS, **options, **({"role": role} if role else {})}
    return {
        "application_name": f"checkout-sessions {name}",
        "connect_timeout": 2,  # seconds; libpq's least
        "options": " ".join(f"-c {key}={value}" for key, value in options.items()),
        "prepare_threshold": 2,
        # A peer that died silently is noticed within seconds.
        "keepalives_idle": 5,
        "keepalives_interval": 2,
        "keepalives_count": 3,
        "tcp_user_timeout": 10_000,
    }


def sync_engine(
    settings: DatabaseSettings, name: str, size: int = 1, role: Role | None = None, **options: str
) -> Engine:
    """For workers and commands; make it after the fork. Without a role it is the login itself, the tables' owner."""
    return create_engine(
        database_url(settings),
        pool_size=size,
        max_overflow=0,
        pool_timeout=5,
        hide_parameters=True,  # they hold carts, and errors are logged
        connect_args=_connect_args(name, role, **options),
    )


def async_engine(
    settings: DatabaseSettings, name: str, size: int = 8, role: Role | None = None, **options: str
) -> AsyncEngine:
    """For the API. `size` connections at most; who waits for one longer than a second hears 503.

    Its JSON is read by what writes it again: numbers that Postgres spells as integers of any length are floats then, as
    they are for JavaScript.
    """
    return create_async_engine(
        database_url(settings),
        pool_size=size,
        max_overflow=0,
        pool_timeout=1,
        hide_parameters=True,
        json_deserializer=orjson.loads,
        connect_args=_connect_args(name, role, **options),
    )


@contextmanager
def transaction(engine: Engine) -> Iterator[Connection[Any]]:
    """One transaction on the driver's own connection, pipelined: what needs no answer travels with what follows it.

    The commit is the caller's, and travels with the last statements; leaving without one rolls back.
    """
    with engine.connect() as connection:
        driver = connection.connection.driver_connection
        assert isinstance(driver, Connection)
        try:
            with driver.pipeline():
                yield driver
        except psycopg.OperationalError:
            if driver.closed:
                connection.invalidate()
            raise


async def async_connection(settings: DatabaseSettings, name: str, role: Role | None = None) -> AsyncConnection[Any]:
    """A connection of one's own in autocommit, where one statement is one transaction."""
    url = database_url(settings).set(drivername="postgresql").render_as_string(hide_password=False)
    connection = await AsyncConnection.connect(url, autocommit=True, **_connect_args(name, role))
    set_json_loads(orjson.loads, connection)
    return connection


def driver_sql(statement: ClauseElement) -> tuple[str, dict[str, Any]]:
    """A statement for psycopg itself: its text with named parameters, and those of them that it brings along."""
    compiled = statement.compile(dialect=create_engine("postgresql+psycopg://").dialect)
    return str(compiled), {name: value for name, value in compiled.params.items() if value is not None}


def lacks_role(error: BaseException | None) -> bool:
    """Whether Postgres answers, but does not know the role that the connection is to take, or does not give it."""
    return isinstance(error, psycopg.OperationalError) and 'role "checkout_' in str(error)


# SQLSTATE classes: connection exception, insufficient resources, operator intervention without query_canceled.
OUTAGE = ("08", "53", "57P", "58")


def is_outage(error: BaseException) -> bool:
    """Whether an error speaks of Postgres being away rather than of what was asked."""
    if isinstance(error, DBAPIError):
        error = error.orig or error
    if isinstance(error, psycopg.Error):
        if error.sqlstate is None:
            return isinstance(error, (psycopg.OperationalError, psycopg.InterfaceError))
        return error.sqlstate.startswith(OUTAGE)
    return isinstance(error, (SQLAlchemyTimeoutError, TimeoutError, OSError))
