"""One Postgres and one Redis for all systems, with a migrated database for each."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
import redis
from psycopg import sql

from benchmarks.requests import USERS
from local.servers import LOGIN, EmbeddedPostgres, EmbeddedRedis

ROOT = Path(__file__).resolve().parent.parent

# The same for all systems. Durability is left on (`fsync`, `synchronous_commit`, `full_page_writes`). Memory as the
# manual advises for this size of machine; checkpoints are the harness's, between measurements, so that none falls into
# one system's seconds only.
SETTINGS = {"shared_buffers": "1GB", "max_wal_size": "16GB", "checkpoint_timeout": "1h"}
DURABLE = ("fsync", "synchronous_commit", "full_page_writes")

SEED = """
INSERT INTO checkout_sessions (
    id, user_id, status, package, step, data, origin, line_id, line_position, line_began_at, expires_at
)
SELECT id, user_id, 'active', 'family', 'details', '{"adults": 2}', 'created', id, 0, now(), now() + interval '1 day'
FROM (SELECT gen_random_uuid() AS id, 'user-' || lpad(n::text, 8, '0') AS user_id FROM generate_series(1, %s) AS n)
"""


@dataclass(frozen=True)
class Servers:
    """The two servers, running."""

    postgres: EmbeddedPostgres
    redis: EmbeddedRedis

    def prepare(self) -> None:
        """Make the migrated database that all others are copies of."""
        env = {"PATH": os.environ["PATH"], "DATABASE_URL": self.postgres.url}
        subprocess.run([sys.executable, "-m", "db.migrate", "up"], cwd=ROOT, env=env, check=True, capture_output=True)

    def database(self, name: str, users: int = USERS) -> str:
        """Make a migrated database in which each user has an active session; returns its URL."""
        url = self.copy(self.postgres.url, name)
        with psycopg.connect(libpq(url), autocommit=True) as connection:
            connection.execute(SEED, [users])
            connection.execute("VACUUM ANALYZE")
        return url

    def copy(self, url: str, name: str, strategy: str = "WAL_LOG") -> str:
        """Copy a database; returns the copy's URL."""
        template = url.rsplit("/", 1)[1]
        statement = sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY {} OWNER {}")
        with psycopg.connect(
            self.postgres.superuser_url.rsplit("/", 1)[0] + "/postgres", autocommit=True
        ) as connection:
            connection.execute(statement.format(*map(sql.Identifier, (name, template, strategy, LOGIN))))
        return self.url_of(name)

    @contextmanager
    def copied(self, url: str, name: str) -> Iterator[str]:
        """A copy, file by file, that is gone afterwards."""
        copy = self.copy(url, name, "FILE_COPY")
        try:
            yield copy
        finally:
            with psycopg.connect(self.postgres.superuser_url, autocommit=True) as connection:
                connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))

    def url_of(self, name: str) -> str:
        """A database's URL."""
        return self.postgres.url.rsplit("/", 1)[0] + f"/{name}"

    def redis_url(self, number: int) -> str:
        """A Redis database's URL."""
        return self.redis.url.rsplit("/", 1)[0] + f"/{number}"

    def checkpoint(self) -> None:
        """Write everything out, so that the next measurement begins as the last one did."""
        with psycopg.connect(self.postgres.superuser_url, autocommit=True) as connection:
            connection.execute("CHECKPOINT")

    def settings(self) -> dict[str, str]:
        """What is set of Postgres, read back."""
        with psycopg.connect(self.postgres.superuser_url) as connection:
            rows = connection.execute(
                "SELECT name, current_setting(name) FROM pg_settings WHERE name = ANY(%s)", [[*DURABLE, *SETTINGS]]
            )
            return dict(rows.fetchall())

    def versions(self) -> dict[str, str]:
        """Of both."""
        with psycopg.connect(self.postgres.superuser_url) as connection:
            row = connection.execute("SHOW server_version").fetchone()
        assert row is not None
        with redis.Redis.from_url(self.redis.url) as client:
            return {"postgres": str(row[0]), "redis": str(client.info("server")["redis_version"])}


def libpq(url: str) -> str:
    """A URL as psycopg wants it."""
    return url.replace("postgresql+psycopg://", "postgresql://", 1)


@contextmanager
def servers(folder: Path, **settings: str) -> Iterator[Servers]:
    """Start both in `folder`.

    Args:
        folder: on the disk to be measured.
        settings: of Postgres, beside `SETTINGS`.
    """
    postgres = EmbeddedPostgres(folder)
    postgres.prepare()
    with (postgres.data / "postgresql.auto.conf").open("a") as file:
        file.writelines(f"{name} = '{value}'\n" for name, value in {**SETTINGS, **settings}.items())
    with postgres, EmbeddedRedis(folder) as redis:
        both = Servers(postgres, redis)
        both.prepare()
        yield both
