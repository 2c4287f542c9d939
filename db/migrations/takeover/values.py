"""What each column is given from an older row, and what an older column is given back: SQL expressions, no I/O."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from alembic.util import CommandError

from db.migrations.takeover.older import TABLE, Column

# Where a column's values may come from, best first.
SOURCES: Final[Mapping[str, Sequence[str]]] = {
    "id": ("id",),
    "user_id": ("user_id",),
    "status": ("status",),
    "package": ("package", "package_id", "package_type", "package_name", "package_data"),
    "step": ("step", "current_step"),
    "data": ("data", "session_data", "metadata"),
    "payment_reference": (
        "payment_reference",
        "payment_intent_id",
        "stripe_payment_intent_id",
        "payment_intent",
        "payment_id",
        "stripe_session_id",
        "stripe_checkout_session_id",
    ),
    "created_at": ("created_at",),
    "updated_at": ("updated_at",),
    "expires_at": ("expires_at",),
    "completed_at": ("completed_at",),
}

STATUSES: Final = ("active", "completed", "expired", "invalidated")
TIMES: Final = ("created_at", "updated_at", "expires_at", "completed_at")
UUID_SHAPE: Final = "'^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$'"
PACKAGE_KEYS: Final = ("id", "package_id", "packageId", "name")

# JSON and times from any text, and any type from text; NULL where there is none. They end with the connection.
FUNCTIONS: Final = """
CREATE OR REPLACE FUNCTION pg_temp.older_data(value text) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE parsed jsonb;
BEGIN
    BEGIN
        parsed := value::jsonb;
        IF jsonb_typeof(parsed) = 'string' THEN
            parsed := (parsed #>> '{}')::jsonb;
        END IF;
    EXCEPTION WHEN others THEN
        parsed := coalesce(parsed, to_jsonb(value));
    END;
    RETURN CASE coalesce(jsonb_typeof(parsed), 'null') WHEN 'object' THEN parsed WHEN 'null' THEN '{}'
        ELSE jsonb_build_object('data', parsed) END;
END $$;
CREATE OR REPLACE FUNCTION pg_temp.older_time(value text) RETURNS timestamptz LANGUAGE plpgsql AS $$
BEGIN
    RETURN value::timestamptz;
EXCEPTION WHEN others THEN
    RETURN NULL;
END $$;
CREATE OR REPLACE FUNCTION pg_temp.older_cast(value text, kind anyelement) RETURNS anyelement LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('SELECT CAST(%L AS %s)', value, pg_typeof(kind)) INTO kind;
    RETURN kind;
EXCEPTION WHEN others THEN
    RETURN NULL;
END $$;
"""


class CannotTakeOver(CommandError):
    """The table is not one that this migration understands; the sentence says why."""


@dataclass(frozen=True, slots=True)
class Source:
    """An older column that a column's values come from, under the name that it has (quoted) at the time."""

    column: Column
    name: str

    @property
    def textual(self) -> bool:
        """Whether it is a string type."""
        return self.column.category == "S"


class Values:
    """Expressions over one row.

    Args:
        sources: by the column that they feed.
        spellings: how the older table writes the words of a status.
    """

    def __init__(self, sources: Mapping[str, Sequence[Source]], spellings: Mapping[str, str]) -> None:
        self.sources = sources
        self.spellings = spellings

    def given(self) -> dict[str, str]:
        """What an older row's columns become."""
        identity = self._id()
        created = self._created_at()
        completed = self._completed_at(created)
        return {
            "id": identity,
            "user_id": f"coalesce({self._text('user_id')}, '')",
            "status": self._status(),
            "package": f"coalesce({self._package()}, '')",
            "step": self._text("step"),
            "data": self._data(),
            "origin": "'created'",
            "line_id": identity,
            "line_position": "0",
            "line_began_at": created,
            "payment_reference": f"CASE {self._status()} WHEN 'completed' THEN {self._payment_reference()} END",
            "created_at": created,
            "updated_at": f"coalesce({self._time('updated_at')}, greatest({created}, {completed}))",
            "expires_at": self._expires_at(created),
            "completed_at": completed,
        }

    def _first(self, target: str) -> Source | None:
        return next(iter(self.sources.get(target, ())), None)

    def _text(self, target: str) -> str:
        source = self._first(target)
        return f"{source.name}::text" if source else "NULL::text"

    def _time(self, target: str) -> str:
        source = self._first(target)
        if source is None:
            return "NULL::timestamptz"
        if source.column.type.startswith("timestamp") and source.column.type.endswith("with time zone"):
            value = f"{source.name}::timestamptz"
        elif source.column.type.startswith(("timestamp", "date")):
            value = f"({source.name}::timestamp AT TIME ZONE 'UTC')"
        elif source.textual:
            value = f"pg_temp.older_time({source.name}::text)"
        else:
            raise CannotTakeOver(f"the column {source.name} of type {source.column.type} holds no time")
        return f"(CASE WHEN isfinite({value}) THEN {value} END)"

    def _id(self) -> str:
        source = self.sources["id"][0]
        if source.column.type == "uuid":
            return source.name
        if not source.textual:
            raise CannotTakeOver(f"the column id is of type {source.column.type}, neither uuid nor text")
        value = f"{source.name}::text"
        return f"(CASE WHEN {value} ~* {UUID_SHAPE} THEN {value}::uuid ELSE md5({value})::uuid END)"

    def _status(self) -> str:
        """Case and blanks aside. An unknown word with a time of completion may be an order: it is kept as completed."""
        word = f"lower(btrim({self._text('status')}))"
        userless = f"coalesce({self._text('user_id')}, '') = ''"
        return (
            f"(CASE WHEN {word} = 'active' AND {userless} THEN 'invalidated'"
            f" WHEN {word} IN ({', '.join(map(literal, STATUSES))}) THEN {word}"
            f" WHEN {self._time('completed_at')} IS NOT NULL THEN 'completed' ELSE 'invalidated' END)"
        )

    def _package(self) -> str:
        source = self._first("package")
        if source is None or source.column.type not in {"json", "jsonb"}:
            return self._text("package")
        keys = [f"{source.name} ->> '{key}'" for key in PACKAGE_KEYS]
        return f"coalesce({', '.join(keys)}, {source.name} #>> '{{}}')"

    def _data(self) -> str:
        source = self._first("data")
        if source is None:
            return "'{}'::jsonb"
        value = f"pg_temp.older_data({source.name}::text)"
        if source.column.type != "jsonb":
            return value
        return f"(CASE jsonb_typeof({source.name}) WHEN 'object' THEN {source.name} ELSE {value} END)"

    def _payment_reference(self) -> str:
        values = [f"nullif({source.name}::text, '')" for source in self.sources.get("payment_reference", ())]
        return f"coalesce({', '.join([*values, 'NULL::text'])})"

    def _created_at(self) -> str:
        day_before = f"{self._time('expires_at')} - interval '24 hours'"
        return f"coalesce({self._time('created_at')}, {day_before}, {self._time('completed_at')}, now())"

    def _expires_at(self, created: str) -> str:
        """A session that ended before it began keeps an end that has passed, which the schema allows."""
        value = self._time("expires_at")
        return (
            f"coalesce(CASE WHEN {value} > {created} THEN {value}"
            f" WHEN {value} IS NOT NULL THEN {created} + interval '1 microsecond' END,"
            f" {created} + interval '24 hours')"
        )

    def _completed_at(self, created: str) -> str:
        return f"CASE {self._status()} WHEN 'completed' THEN coalesce({self._time('completed_at')}, {created}) END"

    def given_back(self, target: str, source: Source) -> str:
        """What `source` holds for a row that the new code wrote."""
        column = source.column
        value = f"{TABLE}.{target}"
        if target == "status":
            words = {**{word: word for word in STATUSES}, **self.spellings}
            words["invalidated"] = words["expired"]
            known = {
                word: spelling for word, spelling in words.items() if not column.labels or spelling in column.labels
            }
            cases = " ".join(f"WHEN {literal(word)} THEN {literal(spelling)}" for word, spelling in known.items())
            return f"(CASE {value} {cases} END)::{column.type}"
        if target == "user_id":
            value = f"nullif({value}, '')"
        if target in TIMES:
            return _time_back(value, source)
        if column.type == "uuid":
            return f"(CASE WHEN {value} ~* {UUID_SHAPE} THEN {value}::uuid END)"
        if target == "package" and column.type in {"json", "jsonb"}:
            return f"jsonb_build_object('{PACKAGE_KEYS[0]}', {value})::{column.type}"
        if target in {"id", "user_id"} and (length := re.search(r"\((\d+)\)$", column.type)):
            # Cut off, two of them could become one.
            value = f"(CASE WHEN length({value}::text) > {length[1]} THEN md5({value}::text) ELSE {value}::text END)"
        if source.textual or target == "data":
            return f"{value}::{column.type}"
        return f"pg_temp.older_cast({value}, NULL::{column.type})"


def literal(value: str) -> str:
    """A string in SQL."""
    return "'" + value.replace("'", "''") + "'"


def _time_back(value: str, source: Source) -> str:
    if source.textual:
        return f"to_char({value} AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')::{source.column.type}"
    if "with time zone" in source.column.type:
        return f"{value}::{source.column.type}"
    return f"({value} AT TIME ZONE 'UTC')::{source.column.type}"


def quoted(name: str) -> str:
    """An identifier in SQL."""
    return '"' + name.replace('"', '""') + '"'
