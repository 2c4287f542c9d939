"""The product's own sweeps, run in this process."""

import logging
import time
from typing import Any

import psycopg
import structlog

from benchmarks.servers import Servers, libpq
from workers.maintenance import Maintenance, maintenance_engine
from workers.settings import WorkerSettings

# Sessions of users of their own, all active and overdue.
OVERDUE = """
INSERT INTO checkout_sessions (
    id, user_id, status, package, step, data, origin, line_id, line_position, line_began_at, created_at, expires_at
)
SELECT id, 'sweep-' || n, 'active', 'family', 'details', '{"adults": 2}', 'created', id, 0, began, began,
    began + interval '1 day'
FROM (
    SELECT n, gen_random_uuid() AS id, now() - interval '1 day' - n * interval '0.1 s' AS began
    FROM generate_series(1, %s) AS n
) AS made
"""
OLD = """
UPDATE checkout_sessions SET created_at = created_at - interval '7 days'
WHERE user_id LIKE 'sweep-%' AND status = 'expired'
"""


def sweeps(servers: Servers, database_url: str) -> Maintenance:
    """The service's maintenance of that database."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    settings = WorkerSettings(database_url=database_url, redis_url=servers.redis_url(13))
    engine = maintenance_engine(settings)
    return Maintenance(engine, settings.limits, settings, lambda _: True, lambda _, __: True)


def run(sweep: Any) -> tuple[int, float]:
    """Run a sweep until nothing is due, however many runs that takes; returns rows and seconds."""
    rows, began = 0, time.perf_counter()
    while done := sweep(trigger="command")["rows"]:
        rows += done
    return rows, time.perf_counter() - began


def execute(database_url: str, statement: str, *values: Any) -> int:
    """One statement in a transaction of its own; returns its row count."""
    with psycopg.connect(libpq(database_url), autocommit=True) as connection:
        return connection.execute(statement, values or None).rowcount
