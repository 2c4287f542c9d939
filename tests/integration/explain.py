"""How Postgres executes the product's own statements, in large tables."""

import re
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any
from uuid import UUID

from psycopg import Connection, sql
from sqlalchemy import ClauseElement
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg

from db.access import Role

PARAMETER = re.compile(r"%\((\w+)\)s")
TYPES = {timedelta: "interval", UUID: "uuid"}  # as psycopg tells; the statements cast the rest
BIG = ("checkout_sessions", "session_tasks")
SESSIONS, TASKS = 200_000, 100_000
CROWD = 1_200  # of these sessions belong to user-52, of these tasks half to them and half to user-50

# Two of five are completed, one of fifty is active, a tenth of these overdue; half of the users come back.
FILL = f"""
INSERT INTO checkout_sessions (id, user_id, status, package, origin, line_id, line_position, line_began_at, created_at,
    expires_at, completed_at, payment_reference)
SELECT id, 'user-' || CASE WHEN n > {SESSIONS - CROWD} THEN 52 ELSE n % {SESSIONS // 2} END, status, 'gold', 'created',
    id, 0, created_at, created_at,
    created_at + interval '1 day', CASE WHEN status = 'completed' THEN created_at END,
    CASE WHEN status = 'completed' THEN 'pay-' || n END
FROM (
    SELECT n, ('00000000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid AS id,
        CASE WHEN n % 5 < 2 THEN 'completed' WHEN n % 50 = 2 AND n < {SESSIONS // 2} THEN 'active'
            WHEN n % 5 = 3 THEN 'expired' ELSE 'invalidated' END AS status,
        now() - CASE WHEN n % 50 = 2 AND n < {SESSIONS // 2} THEN n % 500 * interval '3 min'
            ELSE n % 1000 * interval '10 min' END AS created_at
    FROM generate_series(1, {SESSIONS}) AS n
) AS s;
INSERT INTO session_tasks (id, kind, user_id, session_id, payload, idempotency_key, state, accepted_at, due_at,
    finished_at, result_session_id, refusal)
SELECT ('00000000-0000-7000-9000-' || lpad(to_hex(n), 12, '0'))::uuid,
    (ARRAY['create', 'renew', 'recover', 'complete'])[1 + n % 4],
    'user-' || CASE WHEN n <= {TASKS - CROWD} THEN n WHEN n % 2 = 0 THEN 50 ELSE 52 END,
    ('00000000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid, '{{}}', 'key-' || n, state,
    accepted_at, accepted_at + interval '2 s', CASE WHEN state <> 'PENDING' THEN accepted_at END,
    CASE WHEN state <> 'PENDING' THEN ('00000000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid END,
    CASE WHEN state = 'FAILURE' THEN 'gave_up' END
FROM (
    SELECT n, CASE WHEN n % 50 = 0 THEN 'PENDING' WHEN n % 10 = 1 THEN 'FAILURE' ELSE 'SUCCESS' END AS state,
        now() - n % 10000 * interval '1 min' AS accepted_at
    FROM generate_series(1, {TASKS}) AS n
) AS t
"""


def keep_autovacuum_away(connection: Connection[Any]) -> None:
    """The statistics are what the test says."""
    for table in BIG:
        connection.execute(f"ALTER TABLE {table} SET (autovacuum_enabled = off)")


def fill(connection: Connection[Any]) -> None:
    """Fill both tables."""
    for statement in FILL.split(";\n"):
        connection.execute(statement)


def session_id(number: int) -> UUID:
    """Of a row that `fill` makes."""
    return UUID(int=7 << 76 | 8 << 60 | number)


def task_id(number: int) -> UUID:
    """Of a row that `fill` makes."""
    return UUID(int=7 << 76 | 9 << 60 | number)


def driver_text(statement: ClauseElement, values: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Its text with psycopg's named parameters, and all their values: its own, or these."""
    compiled = statement.compile(dialect=PGDialect_psycopg())
    own = {name: value for name, value in compiled.params.items() if value is not None}
    return str(compiled), {**values, **own}


class Prepared:
    """Statements that a connection has prepared, as the product's connections do after their second use."""

    def __init__(
        self, connection: Connection[Any], statements: Mapping[str, tuple[Role, str, Mapping[str, Any]]]
    ) -> None:
        self.connection = connection
        self.calls: dict[str, sql.Composable] = {}
        self.roles = {name: sql.SQL(f"SET LOCAL ROLE {role}") for name, (role, _, _) in statements.items()}
        for name, (_, text, values) in statements.items():
            names = list(dict.fromkeys(PARAMETER.findall(text)))
            numbered = PARAMETER.sub(lambda found, names=names: f"${names.index(found[1]) + 1}", text)
            types = ", ".join(TYPES.get(type(values[parameter]), "unknown") for parameter in names)
            connection.execute(f"PREPARE {name} {f'({types})' if names else ''} AS {numbered}")
            arguments = sql.SQL(", ").join(sql.Literal(values[parameter]) for parameter in names)
            self.calls[name] = sql.SQL(f"{name} ({{}})" if names else name).format(arguments)

    def explain(self, name: str) -> dict[str, Any]:
        """Execute it, take it back, and tell the plan with what each node did."""
        explain = sql.SQL("EXPLAIN (ANALYZE, FORMAT JSON) EXECUTE {}").format(self.calls[name])
        with self.connection.transaction(force_rollback=True):
            self.connection.execute(self.roles[name])
            return self.connection.execute(explain).fetchone()[0][0]["Plan"]


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A plan's nodes."""
    yield plan
    for child in plan.get("Plans", ()):
        yield from nodes(child)


def trunk(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A plan's nodes from the top down to where its rows come from, without what is computed beside them."""
    yield plan
    for child in plan.get("Plans", ()):
        if child["Parent Relationship"] == "Outer":
            yield from trunk(child)


def faults(plan: dict[str, Any], bound: int) -> list[str]:
    """Where a plan reads or sorts more than `bound` rows, however the table grows, or scans a big table."""
    found = []
    for node in nodes(plan):
        rows = _visited(node)
        name = f"{node['Node Type']} {node.get('Relation Name', '')} {node.get('Index Name', '')}"
        if node["Node Type"] == "Seq Scan" and node["Relation Name"] in BIG:
            found.append(name)
        elif rows > bound and ("Scan" in node["Node Type"] or "Sort" in node["Node Type"]):
            found.append(f"{name}: {rows} rows")
    return found


def _visited(node: dict[str, Any]) -> int:
    removed = sum(rows for name, rows in node.items() if name.startswith("Rows Removed by"))
    return round((node["Actual Rows"] + removed) * node["Actual Loops"])
