"""Where the database's schema differs from the models, down to CHECKs, predicates of indexes, the trigger, and rights.

The models are made once more in a schema of their own, which is rolled back, so that Postgres itself prints both in the
same words.
"""

from collections.abc import Iterator
from typing import Final

from sqlalchemy import Connection, text

from db.access import ACCESS, Role
from db.models import UPDATED_AT_TRIGGER, Base

SCRATCH: Final = "checkout_sessions_as_modelled"

OBJECTS: Final = """
WITH tables AS (
    SELECT oid, relname::text AS relname, relpersistence, relrowsecurity, relacl FROM pg_class
    WHERE relkind = 'r' AND relnamespace = to_regnamespace(quote_ident(:schema)) AND relname = ANY (:tables)
), ours AS (SELECT oid, rolname FROM pg_roles WHERE rolname = ANY (:roles))
SELECT relname, 'table', relname, CASE relpersistence WHEN 'p' THEN 'a table' ELSE 'an unlogged table' END
    || CASE WHEN relrowsecurity THEN '' ELSE ' without row-level security' END
FROM tables
UNION ALL
SELECT relname, 'column', attname, concat_ws(' ', format_type(atttypid, atttypmod),
    CASE WHEN attnotnull THEN 'NOT NULL' END, 'DEFAULT ' || pg_get_expr(adbin, adrelid),
    'IDENTITY ' || nullif(attidentity::text, ''), 'GENERATED ' || nullif(attgenerated::text, ''))
FROM tables JOIN pg_attribute ON attrelid = tables.oid AND attnum > 0 AND NOT attisdropped
LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
UNION ALL
SELECT relname, 'constraint', conname, replace(pg_get_constraintdef(c.oid, true), ' NOT VALID', '')
FROM tables JOIN pg_constraint c ON conrelid = tables.oid AND contype IN ('p', 'u', 'x', 'c', 'f')
UNION ALL
SELECT tables.relname, 'index', i.relname,
    pg_get_indexdef(indexrelid, 0, true) || CASE WHEN indisvalid THEN '' ELSE ' INVALID' END
FROM tables JOIN pg_index ON indrelid = tables.oid JOIN pg_class i ON i.oid = indexrelid
WHERE NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = indexrelid AND contype <> 'f')
UNION ALL
SELECT relname, 'trigger', tgname, concat_ws(' ', pg_get_triggerdef(t.oid, true),
    CASE tgenabled WHEN 'O' THEN NULL WHEN 'D' THEN 'DISABLED' ELSE 'ENABLED ' || tgenabled::text END,
    'AS', btrim(regexp_replace(prosrc, '\\s+', ' ', 'g')), CASE WHEN prosecdef THEN 'SECURITY DEFINER' END, proconfig)
FROM tables JOIN pg_trigger t ON tgrelid = tables.oid AND NOT tgisinternal JOIN pg_proc ON pg_proc.oid = tgfoid
UNION ALL
SELECT relname, 'policy', polname, concat_ws(' ', CASE WHEN polpermissive THEN 'PERMISSIVE' ELSE 'RESTRICTIVE' END,
    'FOR', polcmd, 'TO', (SELECT string_agg(role::regrole::text, ', ' ORDER BY role::regrole::text)
        FROM unnest(polroles) AS role WHERE role <> 0),
    'USING ' || pg_get_expr(polqual, polrelid), 'WITH CHECK ' || pg_get_expr(polwithcheck, polrelid))
FROM tables JOIN pg_policy ON polrelid = tables.oid WHERE polroles && (SELECT array_agg(oid) FROM ours)
UNION ALL
SELECT relname, 'grant', ours.rolname, string_agg(granted.privilege_type, ', ' ORDER BY granted.privilege_type)
FROM (
    SELECT tables.oid, relname, grantee, privilege_type FROM tables, aclexplode(relacl)
    UNION ALL
    SELECT tables.oid, relname, grantee, privilege_type || ' (' || attname || ')'
    FROM tables JOIN pg_attribute ON attrelid = tables.oid AND NOT attisdropped, aclexplode(attacl)
) AS granted JOIN ours ON ours.oid = grantee
GROUP BY relname, ours.rolname
"""

Objects = dict[tuple[str, str, str], str]


def objects(connection: Connection) -> Objects:
    """Definitions in the current schema, by table, kind and name."""
    schema = connection.scalar(text("SELECT current_schema()"))
    narrowed = connection.begin_nested()
    try:
        # Postgres prints names of the searched schemas without these.
        connection.execute(text("SELECT set_config('search_path', quote_ident(:schema), true)"), {"schema": schema})
        rows = connection.execute(
            text(OBJECTS), {"schema": schema, "tables": [*Base.metadata.tables], "roles": [*Role]}
        ).all()
    finally:
        narrowed.rollback()
    return {(table, kind, name): definition for table, kind, name, definition in rows}


def modelled(connection: Connection) -> Objects:
    """The same of the models."""
    scratch = connection.begin_nested()
    try:
        connection.execute(text(f"CREATE SCHEMA {SCRATCH}"))
        connection.execute(text(f"SET LOCAL search_path = {SCRATCH}"))
        Base.metadata.create_all(connection, checkfirst=False)
        for sql in (UPDATED_AT_TRIGGER, ACCESS):
            connection.exec_driver_sql(sql, execution_options={"no_parameters": True})
        return objects(connection)
    finally:
        scratch.rollback()


def differences(connection: Connection) -> Iterator[str]:
    """A sentence for each difference. What an older table has brought along is none."""
    found, wanted = objects(connection), modelled(connection)
    brought: set[str] = set()
    if connection.scalar(text("SELECT to_regclass('checkout_sessions_undo') IS NULL")):
        yield "The table checkout_sessions_undo is missing: the schema cannot be taken back."
    else:
        brought.update(connection.scalars(text("SELECT unnest(kept) FROM checkout_sessions_undo")))
    for key in sorted(found.keys() | wanted.keys()):
        table, kind, name = key
        where = f"{kind} {name}" if kind == "table" else f"{kind} {name} of {table}"
        if kind != "table" and (table, "table", table) not in found:
            continue  # said once, of the table
        if key not in found:
            yield f"The {where} is missing."
        elif key not in wanted:
            if table != "checkout_sessions" or name not in brought:
                yield f"The {where} is not in the models."
        elif found[key] != wanted[key]:
            yield f"The {where} is `{found[key]}`, in the models `{wanted[key]}`."
