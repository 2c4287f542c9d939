"""The steps of a takeover, each noted with the one that undoes it."""

import logging
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from db.migrations.takeover import older as catalog
from db.migrations.takeover.older import TABLE, Column, Constraint, Older, Policy
from db.migrations.takeover.values import (
    FUNCTIONS,
    SOURCES,
    STATUSES,
    CannotTakeOver,
    Source,
    Values,
    quoted,
)

log = logging.getLogger("db.migrations")

# Filled for each older row with the status that it was given: it tells older rows from those that the new code makes,
# and whether the new code has changed them since.
MARK: Final = "older_given_status"
ALTER: Final = f"ALTER TABLE {TABLE}"
PRIMARY_KEY: Final = f"pk_{TABLE}"
TRIGGER: Final = f"{TABLE}_updated_at"

# Of several active sessions of a user the newest stays.
SUPERSEDED: Final = f"""
UPDATE {TABLE} SET status = 'invalidated', {MARK} = 'invalidated' WHERE id IN (
    SELECT id FROM (
        SELECT id, row_number() OVER (PARTITION BY user_id ORDER BY created_at DESC, id DESC) AS place
        FROM {TABLE} WHERE status = 'active'
    ) AS active WHERE place > 1
)
"""
# A payment completes one session: the newest. The others' references stay in the older column.
PAID_TWICE: Final = f"""
UPDATE {TABLE} SET payment_reference = NULL WHERE id IN (
    SELECT id FROM (
        SELECT id, row_number() OVER (PARTITION BY payment_reference ORDER BY completed_at DESC, id DESC) AS place
        FROM {TABLE} WHERE payment_reference IS NOT NULL
    ) AS paid WHERE place > 1
)
"""
UNPAID: Final = f"SELECT EXISTS (SELECT FROM {TABLE} WHERE status = 'completed' AND payment_reference IS NULL)"
NAMES: Final = f"""
SELECT attname FROM pg_attribute WHERE attrelid = {catalog.HERE} AND attnum > 0 AND NOT attisdropped
UNION SELECT indexrelid::regclass::name FROM pg_index WHERE indrelid = {catalog.HERE}
UNION SELECT conname FROM pg_constraint WHERE conrelid = {catalog.HERE}
UNION SELECT tgname FROM pg_trigger WHERE tgrelid = {catalog.HERE} AND NOT tgisinternal
"""


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


class Takeover:
    """An older table becomes the wanted one, in place.

    Columns of the wanted type whose values can stay are kept, under their new name. Every other one stays as it is,
    with its data; where its name is wanted it is called `older_...` from now on.
    """

    def __init__(
        self, steps: Steps, older: Older, wanted: Mapping[str, Wanted], constraints: Mapping[str, str], indexes: str
    ) -> None:
        self.steps = steps
        self.connection = steps.connection
        self.older = older
        self.wanted = wanted
        self.constraints = constraints
        self.indexes = indexes
        self.chosen = _choose(older)
        run(self.connection, FUNCTIONS)
        self.spellings = self._spellings()
        self.kept = self._kept()  # older name -> new name
        self.names = self._names()  # older name -> name from now on
        self.values = self._values(self.names)
        primary = next((c for c in older.constraints if c.kind == "p"), None)
        kept_id = self.kept.get(self.chosen["id"][0].name) == "id"
        self.keeps_primary_key = kept_id and primary is not None and primary.definition == "PRIMARY KEY (id)"

    def execute(self) -> None:
        """Take the table over."""
        self._silence()
        self._free_constraints()
        self._free_indexes()
        self._free_columns()
        self._rename()
        translated = self._withdraw_policies()
        self._fill()
        self._finish()
        self._translate_policies(translated)

    # What there is, and what becomes of it.

    def _values(self, names: Mapping[str, str]) -> Values:
        sources = {
            target: [Source(column, quoted(names[column.name])) for column in columns]
            for target, columns in self.chosen.items()
        }
        return Values(sources, self.spellings)

    def _spellings(self) -> dict[str, str]:
        status = self.chosen["status"][0]
        words = status.labels or [
            word
            for (word,) in run(self.connection, f"SELECT DISTINCT {quoted(status.name)}::text FROM {TABLE} LIMIT 100")
            if word is not None
        ]
        known = {word.strip().lower(): word for word in sorted(words)}  # of several spellings the lower case comes last
        if strange := sorted(known.keys() - set(STATUSES)):
            log.warning("Unknown words for a status become invalidated, or completed with a time of it: %s.", strange)
        return {word: spelling for word, spelling in known.items() if word in STATUSES}

    def _kept(self) -> dict[str, str]:
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
        changed = run(self.connection, f"SELECT {', '.join(changes)} FROM {TABLE}").one()
        return {name: target for (target, name), differs in zip(fitting.items(), changed, strict=True) if not differs}

    def _names(self) -> dict[str, str]:
        names = dict(self.kept)
        taken = {*self.older.columns, *self.wanted, MARK}
        for name in self.older.columns.keys() - self.kept.keys():
            names[name] = name
            if name in self.wanted or name == MARK:
                names[name] = f"older_{name}"
                while names[name] in taken:
                    names[name] += "_"
                taken.add(names[name])
        return names

    def _fed_aside(self) -> set[str]:
        return {source.column.name for _, source, _ in self._aside()}

    def _aside(self) -> Iterator[tuple[str, Source, bool]]:
        """The older columns that feed one of another column, with whether it is the one that is fed back."""
        for target, sources in self.values.sources.items():
            for place, source in enumerate(sources):
                if source.column.name not in self.kept:
                    yield target, source, place == 0

    # Everything that would stand in the way of new rows, or of a change, makes room.

    def _silence(self) -> None:
        """Older triggers and policies know the older columns. Disabled triggers stay, for the way back."""
        for policy in self.older.policies:
            if not policy.columns.isdisjoint(self._fed_aside()):
                self.steps.later(_create_policy(policy))
        enable = {"O": "ENABLE", "R": "ENABLE REPLICA", "A": "ENABLE ALWAYS"}
        for trigger in self.older.triggers:
            name = quoted(trigger.name)
            if trigger.enabled in enable:
                log.warning("The older trigger %s is disabled.", trigger.name)
                self.steps.do(f"{ALTER} DISABLE TRIGGER {name}", f"{ALTER} {enable[trigger.enabled]} TRIGGER {name}")
            if trigger.name == TRIGGER:
                aside = quoted(f"older_{trigger.name}")
                self.steps.do(
                    f"ALTER TRIGGER {name} ON {TABLE} RENAME TO {aside}",
                    f"ALTER TRIGGER {aside} ON {TABLE} RENAME TO {name}",
                )
        if self.older.forced:
            self.steps.do(f"{ALTER} NO FORCE ROW LEVEL SECURITY", f"{ALTER} FORCE ROW LEVEL SECURITY")

    def _free_constraints(self) -> None:
        for key in self.older.incoming:
            if not self.keeps_primary_key:
                log.warning("The foreign key %s of %s is dropped: the ids' type changes.", key.name, key.table)
                self._drop_constraint(key)
            elif key.blocks_deletes:
                log.warning("The foreign key %s of %s will forbid to delete old sessions.", key.name, key.table)
        fed_back = self._fed_back()
        for constraint in self.older.constraints:
            if constraint.kind == "p" and self.keeps_primary_key:
                if constraint.name != PRIMARY_KEY:
                    names = quoted(constraint.name), PRIMARY_KEY
                    self.steps.do(*(f"{ALTER} RENAME CONSTRAINT {a} TO {b}" for a, b in (names, names[::-1])))
            elif self._hinders(constraint):
                self._drop_constraint(constraint)
            elif constraint.kind == "f" and not constraint.columns.isdisjoint(fed_back):
                self._put_back_later(constraint)

    def _hinders(self, constraint: Constraint) -> bool:
        """Whether new rows, or the deletion of old ones, may fail on it."""
        if constraint.kind == "f":
            return constraint.self_referring or not constraint.columns.isdisjoint(self.kept)
        return not (constraint.referenced and self.keeps_primary_key)

    def _drop_constraint(self, constraint: Constraint) -> None:
        self._put_back_later(constraint)
        self.steps.do(f"ALTER TABLE {constraint.table} DROP CONSTRAINT {quoted(constraint.name)}")

    def _put_back_later(self, constraint: Constraint) -> None:
        alter, name = f"ALTER TABLE {constraint.table}", quoted(constraint.name)
        add = f"{alter} ADD CONSTRAINT {name} {constraint.definition}"
        if constraint.kind not in "cf":
            self.steps.later(add, f"The constraint {name} cannot be put back")
        elif "NOT VALID" in constraint.definition or "NOT ENFORCED" in constraint.definition:
            self.steps.later(add)
        else:
            self.steps.later(f"{alter} VALIDATE CONSTRAINT {name}", f"The constraint {name} binds new rows only")
            self.steps.later(f"{add} NOT VALID")

    def _free_indexes(self) -> None:
        """Of the older indexes those stay that bind nothing and cover none of the columns that are known here."""
        ours = {*self.kept, *(column.name for columns in self.chosen.values() for column in columns)}
        for index in self.older.indexes:
            if index.referenced and self.keeps_primary_key:
                continue
            if index.unique or not index.columns.isdisjoint(ours) or f" {index.name} ON " in self.indexes:
                otherwise = f"The index {index.name} cannot be put back" if index.unique else None
                self.steps.do(f"DROP INDEX {quoted(index.name)}", index.definition, otherwise)

    def _free_columns(self) -> None:
        for column in self.older.columns.values():
            target = self.kept.get(column.name)
            alter = f"{ALTER} ALTER COLUMN {quoted(column.name)}"
            fed = target is not None or any(column in columns for columns in self.chosen.values())
            if column.default is not None and fed and not column.computed:
                self.steps.do(f"{alter} DROP DEFAULT", f"{alter} SET DEFAULT {column.default}")
            if self._loosened(column):
                self.steps.do(
                    f"{alter} DROP NOT NULL",
                    f"{alter} SET NOT NULL",
                    f"The column {column.name} may be null from now on",
                )

    def _loosened(self, column: Column) -> bool:
        """Whether it was NOT NULL and cannot stay so."""
        target = self.kept.get(column.name)
        if not column.not_null or column.identity or (target and not self.wanted[target].nullable):
            return False
        return column.default is None or column.computed or any(column in each for each in self.chosen.values())

    def _rename(self) -> None:
        for name, now in sorted(self.names.items(), key=lambda pair: pair[0] in self.kept):
            if name != now:
                there, back = (quoted(name), quoted(now)), (quoted(now), quoted(name))
                self.steps.do(*(f"{ALTER} RENAME COLUMN {a} TO {b}" for a, b in (there, back)))

    # Policies that read an older column which new rows leave empty read the new one instead.

    def _withdraw_policies(self) -> list[Policy]:
        """Drop them, and say what they read under the names of now."""
        aside = {self.names[name] for name in self._fed_aside()}
        withdrawn = [each for each in catalog.policies(self.connection) if not each.columns.isdisjoint(aside)]
        for policy in withdrawn:
            self.steps.do(f"DROP POLICY {quoted(policy.name)} ON {TABLE}")
        return withdrawn

    def _translate_policies(self, policies: Iterable[Policy]) -> None:
        """One that cannot be translated stays dropped until the way back: whom it let in is kept out."""
        aside = [(self.names[source.column.name], target, source) for target, source, _ in self._aside()]
        for policy in policies:
            read = {name: (target, source) for name, target, source in aside if name in policy.columns}
            words = {name: self.values.given_back(target, source) for name, (target, source) in read.items()}
            plain = all(name.startswith("older_") and "pg_temp" not in words[name] for name in words)
            create = _create_policy(policy, words)
            error = attempt(self.connection, create) if plain else "it reads columns in a way of their own"
            if error is None:
                self.steps.later(f"DROP POLICY {quoted(policy.name)} ON {TABLE}")
            else:
                log.warning("The policy %s is dropped, for it cannot be translated: %s.", policy.name, error)

    # The rows.

    def _fill(self) -> None:
        columns = {name: wanted for name, wanted in self.wanted.items() if name not in self.kept.values()}
        added = [f"ADD COLUMN {name} {wanted.type}" for name, wanted in columns.items()]
        dropped = [f"DROP COLUMN {name}" for name in [*columns, MARK]]
        self.steps.do(f"{ALTER} {', '.join([*added, f'ADD COLUMN {MARK} text'])}", f"{ALTER} {', '.join(dropped)}")
        fed_back = self._fed_back()
        self.steps.later(f"UPDATE {TABLE} SET {', '.join(fed_back.values())} WHERE {self._changed_since()}")
        for key in self.older.constraints:
            if key.kind == "f" and not self._hinders(key) and not key.columns.isdisjoint(fed_back):
                self.steps.later(f"{ALTER} DROP CONSTRAINT {quoted(key.name)}")
        self.steps.later(FUNCTIONS)
        given = {name: value for name, value in self.values.given().items() if name in columns}
        assignments = [f"{name} = {value}" for name, value in {**given, MARK: given["status"]}.items()]
        self.steps.do(f"UPDATE {TABLE} SET {', '.join(assignments)}")
        self.steps.do(SUPERSEDED)
        self.steps.do(PAID_TWICE)

    def _fed_back(self) -> dict[str, str]:
        """For the way back: what the older columns get, of rows that the new code made or changed."""
        given = self.values.given()
        result = {}
        for target, source, first in self._aside():
            if source.column.computed or not (first or self._loosened(source.column)):
                continue
            value = self.values.given_back(target, source) if first else source.name
            value = _filled(value, source.column, "md5(user_id)::uuid" if target == "user_id" else "id")
            unchanged = _unchanged(target, given[target])
            result[source.column.name] = f"{source.name} = CASE WHEN {unchanged} THEN {source.name} ELSE {value} END"
        for column in self.older.columns.values():
            if column.name not in result and self._loosened(column) and not column.computed:
                name = quoted(self.names[column.name])
                value = _filled(name, column, "id")
                if column.name not in self.kept:
                    value = f"CASE WHEN {MARK} IS NULL THEN {value} ELSE {name} END"
                result[column.name] = f"{name} = {value}"
        return result

    def _changed_since(self) -> str:
        given = self.values.given()
        conditions = [f"{MARK} IS NULL", f"status <> {MARK}"]
        for target, source, first in self._aside():
            if first and target in {"step", "data", "updated_at"} and not source.column.computed:
                conditions.append(f"{target} IS DISTINCT FROM {given[target]}")
        for name, target in self.kept.items():
            if self._loosened(self.older.columns[name]):
                conditions.append(f"{target} IS NULL")
        return " OR ".join(conditions)

    def _finish(self) -> None:
        """Hold the table to what is wanted, in one pass over the rows."""
        changes = []
        for name, wanted in self.wanted.items():
            column = next((self.older.columns[older] for older, now in self.kept.items() if now == name), None)
            if wanted.default is not None:
                changes.append(f"ALTER COLUMN {name} SET DEFAULT {wanted.default}")
                if column:
                    self.steps.later(f"{ALTER} ALTER COLUMN {name} DROP DEFAULT")
            if not wanted.nullable and not (column and column.not_null):
                changes.append(f"ALTER COLUMN {name} SET NOT NULL")
                if column:
                    self.steps.later(f"{ALTER} ALTER COLUMN {name} DROP NOT NULL")
        unpaid = run(self.connection, UNPAID).scalar_one()
        if unpaid:
            log.warning("Older sessions completed without a payment reference stay so; new ones cannot.")
        for name, rule in self.constraints.items():
            if name == PRIMARY_KEY and self.keeps_primary_key:
                continue
            lenient = " NOT VALID" if unpaid and name == f"ck_{TABLE}_payment_reference" else ""
            changes.append(f"ADD CONSTRAINT {name} {rule}{lenient}")
            self.steps.later(f"{ALTER} DROP CONSTRAINT {name}")
        self.steps.do(f"{ALTER} {', '.join(changes)}")
        names = re.findall(r"INDEX (\w+) ON", self.indexes)
        self.steps.do(self.indexes, f"DROP INDEX {', '.join(names)}")
        run(self.connection, f"ANALYZE {TABLE}")

    def kept_names(self, trigger: str) -> list[str]:
        """The names of what is left of the older table: columns, indexes, constraints, triggers."""
        ours = {*self.wanted, *self.constraints, *re.findall(r"INDEX (\w+) ON", self.indexes), trigger}
        return sorted(name for (name,) in run(self.connection, NAMES) if name not in ours)


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


def _create_policy(policy: Policy, words: Mapping[str, str] | None = None) -> str:
    """The statement that makes it, with columns replaced by `words`."""

    def translated(expression: str) -> str:
        for name, value in (words or {}).items():
            expression = re.sub(rf"\b(?:{TABLE}\.)?{name}\b", lambda _, value=value: value, expression)  # type: ignore[misc]
        return expression

    kind = "PERMISSIVE" if policy.permissive else "RESTRICTIVE"
    using = f" USING ({translated(policy.using)})" if policy.using else ""
    check = f" WITH CHECK ({translated(policy.check)})" if policy.check else ""
    return (
        f"CREATE POLICY {quoted(policy.name)} ON {TABLE} AS {kind} FOR {policy.command} TO {policy.roles}{using}{check}"
    )
