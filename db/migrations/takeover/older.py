"""What an older `checkout_sessions` table looks like, as the catalogs say."""

from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, text

TABLE: Final = "checkout_sessions"


@dataclass(frozen=True, slots=True)
class Column:
    """`category` is Postgres's class of types (S: string, D: time, E: enum ...); `labels` are an enum's words."""

    name: str
    type: str
    category: str
    not_null: bool
    default: str | None
    generated: bool
    identity: bool
    collated: bool
    labels: frozenset[str]

    @property
    def computed(self) -> bool:
        """Whether nobody else may write it."""
        return self.generated or self.identity


@dataclass(frozen=True, slots=True)
class Constraint:
    """`own`: this table's. `kind` is p, u, x, c or f; `self_referring` and `blocks_deletes` speak of foreign keys."""

    table: str
    name: str
    kind: str
    definition: str
    own: bool
    self_referring: bool
    blocks_deletes: bool
    columns: frozenset[str]
    referenced: bool  # a foreign key points at its index


@dataclass(frozen=True, slots=True)
class Index:
    """An index that stands for no constraint."""

    name: str
    definition: str
    unique: bool
    referenced: bool  # a foreign key points at it
    columns: frozenset[str]


@dataclass(frozen=True, slots=True)
class Trigger:
    """`enabled` is O (origin), R (replica), A (always) or D (disabled)."""

    name: str
    enabled: str


@dataclass(frozen=True, slots=True)
class Policy:
    """A row-level security policy, its expressions printed with the columns' present names."""

    name: str
    permissive: bool
    command: str
    roles: str
    using: str | None
    check: str | None
    columns: frozenset[str]


@dataclass(frozen=True, slots=True)
class Older:
    """The table and all that hangs on it."""

    ordinary: bool  # a plain table, neither partitioned nor inherited
    forced: bool  # row-level security binds the owner too
    columns: dict[str, Column]
    constraints: list[Constraint]
    incoming: list[Constraint]  # foreign keys of other tables
    indexes: list[Index]
    triggers: list[Trigger]
    policies: list[Policy]


HERE: Final = f"to_regclass(quote_ident(current_schema()) || '.{TABLE}')"

FLAGS: Final = f"""
SELECT relforcerowsecurity AS forced, relkind = 'r' AND NOT relispartition
    AND NOT EXISTS (SELECT FROM pg_inherits WHERE {HERE} IN (inhrelid, inhparent)) AS ordinary
FROM pg_class WHERE oid = {HERE}
"""

COLUMNS: Final = f"""
SELECT a.attname AS name, format_type(a.atttypid, a.atttypmod) AS type, t.typcategory AS category,
    a.attnotnull AS not_null, pg_get_expr(d.adbin, d.adrelid) AS default,
    a.attgenerated <> '' AS generated, a.attidentity <> '' AS identity, a.attcollation <> t.typcollation AS collated,
    ARRAY(SELECT enumlabel::text FROM pg_enum WHERE enumtypid = t.oid) AS labels
FROM pg_attribute a
JOIN pg_type t ON t.oid = a.atttypid
LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
WHERE a.attrelid = {HERE} AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY a.attnum
"""

CONSTRAINTS: Final = f"""
SELECT c.conrelid::regclass::text AS table, c.conname AS name, c.contype AS kind,
    pg_get_constraintdef(c.oid) AS definition, c.conrelid = {HERE} AS own,
    c.contype = 'f' AND c.conrelid = c.confrelid AS self_referring, c.confdeltype IN ('a', 'r') AS blocks_deletes,
    ARRAY(SELECT attname::text FROM pg_attribute WHERE attrelid = c.conrelid AND attnum = ANY (c.conkey)) AS columns,
    c.conindid <> 0 AND EXISTS (SELECT FROM pg_constraint f WHERE f.contype = 'f' AND f.conindid = c.conindid)
        AS referenced
FROM pg_constraint c
WHERE (c.conrelid = {HERE} AND c.contype IN ('p', 'u', 'x', 'c', 'f'))
    OR (c.confrelid = {HERE} AND c.contype = 'f' AND c.conparentid = 0)
ORDER BY c.contype <> 'f', c.conname
"""

INDEXES: Final = f"""
SELECT c.relname AS name, pg_get_indexdef(i.indexrelid) AS definition, i.indisunique AS unique,
    EXISTS (SELECT FROM pg_constraint f WHERE f.contype = 'f' AND f.conindid = i.indexrelid) AS referenced,
    ARRAY(SELECT a.attname::text FROM pg_depend d
        JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
        WHERE d.classid = 'pg_class'::regclass AND d.objid = i.indexrelid AND d.refobjid = i.indrelid) AS columns
FROM pg_index i
JOIN pg_class c ON c.oid = i.indexrelid
WHERE i.indrelid = {HERE} AND NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = i.indexrelid AND contype <> 'f')
ORDER BY c.relname
"""

TRIGGERS: Final = f"""
SELECT tgname AS name, tgenabled AS enabled FROM pg_trigger WHERE tgrelid = {HERE} AND NOT tgisinternal ORDER BY tgname
"""

POLICIES: Final = f"""
SELECT p.polname AS name, p.polpermissive AS permissive,
    CASE p.polcmd WHEN 'r' THEN 'SELECT' WHEN 'a' THEN 'INSERT' WHEN 'w' THEN 'UPDATE' WHEN 'd' THEN 'DELETE'
        ELSE 'ALL' END AS command,
    (SELECT string_agg(CASE role WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(role)) END, ', ')
        FROM unnest(p.polroles) AS role) AS roles,
    pg_get_expr(p.polqual, p.polrelid) AS using, pg_get_expr(p.polwithcheck, p.polrelid) AS check,
    ARRAY(SELECT a.attname::text FROM pg_depend d
        JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
        WHERE d.classid = 'pg_policy'::regclass AND d.objid = p.oid AND d.refobjid = p.polrelid) AS columns
FROM pg_policy p WHERE p.polrelid = {HERE} ORDER BY p.polname
"""

FUNCTION: Final = "SELECT pg_get_functiondef(to_regprocedure(quote_ident(current_schema()) || '.set_updated_at()'))"


def read(connection: Connection) -> Older | None:
    """The table of the current schema, if there is one, locked."""
    for flags in _rows(connection, FLAGS):
        connection.execute(text(f"LOCK TABLE {TABLE} IN ACCESS EXCLUSIVE MODE"))
        constraints = [Constraint(**row) for row in _rows(connection, CONSTRAINTS)]
        return Older(
            **flags,
            columns={row["name"]: Column(**row) for row in _rows(connection, COLUMNS)},
            constraints=[constraint for constraint in constraints if constraint.own],
            incoming=[constraint for constraint in constraints if not constraint.own],
            indexes=[Index(**row) for row in _rows(connection, INDEXES)],
            triggers=[Trigger(**row) for row in _rows(connection, TRIGGERS)],
            policies=policies(connection),
        )
    return None


def policies(connection: Connection) -> list[Policy]:
    """The table's policies."""
    return [Policy(**row) for row in _rows(connection, POLICIES)]


def function(connection: Connection) -> str | None:
    """The definition of a `set_updated_at()` that is already there."""
    definition: str | None = connection.scalar(text(FUNCTION))
    return definition


def _rows(connection: Connection, query: str) -> list[dict[str, Any]]:
    return [
        {name: frozenset(value) if isinstance(value, list) else value for name, value in row.items()}
        for row in connection.execute(text(query)).mappings()
    ]
