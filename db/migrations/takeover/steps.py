"""Statements, each noted with the one that undoes it."""

import logging
from collections.abc import Iterable
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

log = logging.getLogger("db.migrations")


def run(connection: Connection, sql: str) -> Any:
    """Execute statements that hold no parameters, so that a percent sign is one."""
    return connection.exec_driver_sql(sql, execution_options={"no_parameters": True})


class Steps:
    """Executes, and notes how to go back: last done, first undone."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._undo: list[tuple[str, str | None]] = []

    def do(self, sql: str, undo: str | None = None, otherwise: str | None = None) -> None:
        """Execute a step. What `otherwise` says is logged if later rows forbid the way back."""
        run(self.connection, sql)
        if undo:
            self.later(undo, otherwise)

    def later(self, undo: str, otherwise: str | None = None) -> None:
        """Note a step that only the way back has."""
        self._undo.append((undo, otherwise))

    @property
    def undo(self) -> list[tuple[str, str | None]]:
        """The way back, in its order."""
        return self._undo[::-1]


def go_back(connection: Connection, undo: Iterable[tuple[str, str | None]]) -> None:
    """Walk the way back."""
    for sql, otherwise in undo:
        if otherwise is None:
            run(connection, sql)
        elif (error := attempt(connection, sql)) is not None:
            log.warning("%s: %s", otherwise, error)


def attempt(connection: Connection, sql: str) -> str | None:
    """Execute what may be refused, and say why it was."""
    try:
        with connection.begin_nested():
            run(connection, sql)
    except DBAPIError as error:
        return str(error.orig).partition("\n")[0]
    return None
