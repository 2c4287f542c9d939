"""A database as the tests of migrations see it: the commands run on it, its rows, and its shape in pg_dump's words."""

import io
import logging
import os
import subprocess
import sys
from typing import Any
from unittest import mock

import psycopg

from db.migrate import main
from local.servers import _postgres_program
from tests.stack import ROOT

Row = dict[str, Any]

EMPTY = """
    SELECT format('DROP PUBLICATION %I', pubname) FROM pg_publication
    UNION ALL SELECT format('DROP SCHEMA %I CASCADE', nspname) FROM pg_namespace WHERE nspname !~ '^pg_|^information_'
    UNION ALL SELECT 'CREATE SCHEMA public; GRANT USAGE ON SCHEMA public TO PUBLIC'
    UNION ALL SELECT format('ALTER DATABASE %I RESET ALL', current_database())
"""


class Database:
    """One database."""

    def __init__(self, url: str) -> None:
        self.made_as = url
        self.url = url
        self.libpq_url = url.replace("+psycopg", "", 1)

    def empty(self) -> None:
        """Make it as it was when it was new."""
        with self.connect() as connection:
            for (statement,) in connection.cursor(row_factory=psycopg.rows.tuple_row).execute(EMPTY).fetchall():
                connection.execute(statement.encode())

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        """Begin `python -m db.migrate` in a process of its own."""
        return subprocess.Popen(
            [sys.executable, "-W", "error", "-m", "db.migrate", *arguments],
            cwd=ROOT,
            env={"DATABASE_URL": self.url, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def migrate(self, *arguments: str, code: int = 0) -> str:
        """The same in this process, which is faster; what it says."""
        said = io.StringIO()
        handler = logging.StreamHandler(said)
        logger = logging.getLogger("db")
        level = logger.level
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        try:
            with mock.patch.dict(os.environ, DATABASE_URL=self.url):
                error = main([*arguments])
        finally:
            logger.removeHandler(handler)
            logger.setLevel(level)
        assert (error is None) == (code == 0), error or said.getvalue()
        return said.getvalue() + (error or "")

    def connect(self) -> psycopg.Connection[Row]:
        """A connection of one's own."""
        return psycopg.connect(self.libpq_url, autocommit=True, row_factory=psycopg.rows.dict_row)

    def execute(self, statements: str) -> list[Row]:
        """Execute, and the last one's rows."""
        with self.connect() as connection:
            cursor = connection.execute(statements.encode())
            while cursor.nextset():
                pass
            return cursor.fetchall() if cursor.description else []

    def refusal(self, statement: str) -> str | None:
        """The name of the constraint that refuses the statement, or how else it is refused."""
        try:
            self.execute(statement)
        except psycopg.Error as error:
            return error.diag.constraint_name or error.diag.message_primary
        raise AssertionError(f"not refused: {statement}")

    def rows(self, columns: str = "*", where: str = "true") -> dict[str, Row]:
        """The sessions by id, each value as Postgres writes it."""
        with self.connect() as connection:
            cursor = connection.execute(f"SELECT {columns} FROM checkout_sessions WHERE {where}".encode())
            names = [column.name for column in cursor.description or ()]
            written = ", ".join(f'"{name}"::text' for name in names)
            selected = connection.execute(f"SELECT {written} FROM checkout_sessions WHERE {where}".encode()).fetchall()
        return {row["id"]: row for row in selected}

    def dump(self) -> str:
        """The shape of everything, but for Alembic's own table."""
        program = str(_postgres_program("pg_dump"))
        command = [program, "--schema-only", "--no-owner", "-T", "alembic_version", "-d", self.libpq_url]
        said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        return "\n".join(line for line in said.splitlines() if line and not line.startswith(("--", "\\")))
