"""What becomes of each column of an older table."""

import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection

from db.migrations.takeover.older import TABLE, Column, Older
from db.migrations.takeover.steps import run
from db.migrations.takeover.values import FUNCTIONS, SOURCES, STATUSES, CannotTakeOver, Source, Values, quoted

log = logging.getLogger("db.migrations")

# Filled for each older row with the status that it was given: it tells older rows from those that the new code makes,
# and whether the new code has changed them since.
MARK: Final = "older_given_status"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a column is to be."""

    type: str
    default: str | None = None
    nullable: bool = False

    @property
    def sql(self) -> str:
        """As CREATE TABLE wants it."""
        default = f" DEFAULT {self.default}" if self.default else ""
        return f"{self.type}{default}{'' if self.nullable else ' NOT NULL'}"


class Columns:
    """The plan. Columns of the wanted type whose values can stay are kept, under their new name.

    Every other one stays as it is, with its data; where its name is wanted it is called `older_...` from now on.
    """

    def __init__(self, connection: Connection, older: Older, wanted: Mapping[str, Wanted]) -> None:
        self.older = older
        self.wanted = wanted
        self.chosen = _choose(older)
        run(connection, FUNCTIONS)
        self.spellings = self._spellings(connection)
        self.kept = self._kept(connection)  # older name -> new name
        self.names = self._names()  # older name -> name from now on
        self.values = self._values(self.names)

    def _values(self, names: Mapping[str, str]) -> Values:
        sources = {
            target: [Source(column, quoted(names[column.name])) for column in columns]
            for target, columns in self.chosen.items()
        }
        return Values(sources, self.spellings)

    def _spellings(self, connection: Connection) -> dict[str, str]:
        status = self.chosen["status"][0]
        words = status.labels or [
            word
            for (word,) in run(connection, f"SELECT DISTINCT {quoted(status.name)}::text FROM {TABLE} LIMIT 100")
            if word is not None
        ]
        known = {word.strip().lower(): word for word in sorted(words)}  # of several spellings the lower case comes last
        if strange := sorted(known.keys() - set(STATUSES)):
            log.warning("Unknown words for a status become invalidated, or completed with a time of it: %s.", strange)
        return {word: spelling for word, spelling in known.items() if word in STATUSES}

    def _kept(self, connection: Connection) -> dict[str, str]:
        same = {name: name for name in self.older.columns}
        given = self._values(same).given()
        fitting = {
            target: columns[0].name
            for target, columns in self.chosen.items()
            if target not in {"status", "payment_reference"}
            and columns[0].type == self.wanted[target].type
            and not (columns[0].computed or columns[0].collated)
        }
        if not fitting:
            return {}
        changes = [f"bool_or({quoted(name)} IS DISTINCT FROM {given[target]})" for target, name in fitting.items()]
        changed = run(connection, f"SELECT {', '.join(changes)} FROM {TABLE}").one()
        return {name: target for (target, name), differs in zip(fitting.items(), changed, strict=True) if not differs}

    def _names(self) -> dict[str, str]:
        names = dict(self.kept)
        taken = {*self.older.columns, *self.wanted, MARK}
        for name in self.older.columns:
            if name in self.kept:
                continue
            names[name] = name
            if name in self.wanted or name == MARK:
                names[name] = f"older_{name}"
                while names[name] in taken:
                    names[name] += "_"
                taken.add(names[name])
        return names

    def aside(self) -> Iterator[tuple[str, Source, bool]]:
        """The older columns that feed one of another column, with whether it is the one that is fed back."""
        for target, sources in self.values.sources.items():
            for place, source in enumerate(sources):
                if source.column.name not in self.kept:
                    yield target, source, place == 0

    def emptied(self) -> set[str]:
        """The older columns that new rows leave empty, although another column holds what they would."""
        return {source.column.name for _, source, _ in self.aside()}

    def is_source(self, column: Column) -> bool:
        """Whether a column gets its values from it, or it is kept as one."""
        return any(column in columns for columns in self.chosen.values())

    def loosened(self, column: Column) -> bool:
        """Whether it was NOT NULL and cannot stay so."""
        target = self.kept.get(column.name)
        if not column.not_null or column.identity or (target and not self.wanted[target].nullable):
            return False
        return column.default is None or column.computed or self.is_source(column)

    def fed_back(self) -> dict[str, str]:
        """For the way back: what the older columns get, of rows that the new code made or changed."""
        given = self.values.given()
        result = {}
        for target, source, first in self.aside():
            if source.column.computed or not (first or self.loosened(source.column)):
                continue
            value = self.values.given_back(target, source) if first else source.name
            value = _filled(value, source.column, "md5(user_id)::uuid" if target == "user_id" else "id")
            unchanged = _unchanged(target, given[target])
            result[source.column.name] = f"{source.name} = CASE WHEN {unchanged} THEN {source.name} ELSE {value} END"
        for column in self.older.columns.values():
            if column.name not in result and self.loosened(column) and not column.computed:
                name = quoted(self.names[column.name])
                value = _filled(name, column, "id")
                if column.name not in self.kept:
                    value = f"CASE WHEN {MARK} IS NULL THEN {value} ELSE {name} END"
                result[column.name] = f"{name} = {value}"
        return result

    def changed_since(self) -> str:
        """For the way back: the rows that the new code made or changed."""
        given = self.values.given()
        conditions = [f"{MARK} IS NULL", f"status <> {MARK}"]
        for target, source, first in self.aside():
            if first and target in {"step", "data", "updated_at"} and not source.column.computed:
                conditions.append(f"{target} IS DISTINCT FROM {given[target]}")
        for name, target in self.kept.items():
            if self.loosened(self.older.columns[name]):
                conditions.append(f"{target} IS NULL")
        return " OR ".join(conditions)


def _choose(older: Older) -> dict[str, list[Column]]:
    """The older columns that feed each column, best first."""
    if not older.ordinary:
        raise CannotTakeOver(f"{TABLE} is there, but is no plain table")
    found = {_snake(name): column for name, column in older.columns.items()} | older.columns
    chosen = {}
    for target, names in SOURCES.items():
        columns = [found[name] for name in names if name in found]
        if target == "package":  # what says it in a word goes before a document
            columns.sort(key=lambda column: column.type in {"json", "jsonb"})
        if target == "payment_reference":
            columns = [column for column in columns if column.category == "S"]
        chosen[target] = columns if target == "payment_reference" else columns[:1]
    if missing := [name for name in ("id", "status") if not chosen[name]]:
        raise CannotTakeOver(f"{TABLE} is there, but without the column {' or '.join(missing)}")
    return {target: columns for target, columns in chosen.items() if columns}


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])([A-Z])", r"_\1", name).lower()


def _unchanged(target: str, given: str) -> str:
    """Whether the new code has left alone what an older row says."""
    if target in {"id", "user_id", "package", "created_at", "expires_at"}:  # these never change
        return f"{MARK} IS NOT NULL"
    if target == "status":
        return f"{MARK} IS NOT DISTINCT FROM status"
    if target in {"payment_reference", "completed_at"}:
        return f"{MARK} = 'completed' OR ({MARK} IS NOT NULL AND status <> 'completed')"
    return f"{MARK} IS NOT NULL AND {target} IS NOT DISTINCT FROM {given}"


def _filled(value: str, column: Column, identity: str) -> str:
    """Instead of null, where the older table allowed none: a value that says nothing, if the type has one."""
    nothing = {"S": "''", "N": "0", "B": "false", "A": "'{}'", "D": "created_at"}.get(column.category)
    nothing = {"uuid": identity, "json": "'{}'", "jsonb": "'{}'"}.get(column.type, nothing)
    return f"coalesce({value}, {nothing}::{column.type})" if column.not_null and nothing else value
