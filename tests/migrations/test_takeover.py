"""Older tables of many shapes: taken over in place, held to the same schema, and given back as they were."""

from collections.abc import Callable

import pytest

from tests.migrations.database import Database, Row
from tests.migrations.shapes import SHAPES, SUPABASE, TEXT_IDS, A, B, Shape, session

SHAPE = """
    SELECT 'column', attname::text, format_type(atttypid, atttypmod), attnotnull::text, pg_get_expr(adbin, adrelid)
    FROM pg_attribute LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
    WHERE attrelid = 'checkout_sessions'::regclass AND attnum > 0 AND NOT attisdropped
    UNION ALL SELECT 'constraint', conname, replace(pg_get_constraintdef(oid), ' NOT VALID', ''), NULL, NULL
    FROM pg_constraint WHERE conrelid = 'checkout_sessions'::regclass AND contype <> 'n'
    UNION ALL SELECT 'index', indexrelid::regclass::text, pg_get_indexdef(indexrelid), NULL, NULL
    FROM pg_index WHERE indrelid = 'checkout_sessions'::regclass
    UNION ALL SELECT 'trigger', tgname, pg_get_triggerdef(t.oid), tgenabled::text, prosrc
    FROM pg_trigger t JOIN pg_proc p ON p.oid = tgfoid
    WHERE tgrelid = 'checkout_sessions'::regclass AND NOT tgisinternal
"""

NEW = "019a0000-0000-7000-8000-000000000001"
NEXT = "019a0000-0000-7000-8000-000000000002"
LAST = "019a0000-0000-7000-8000-000000000003"


@pytest.fixture(params=[*SHAPES])
def shape(request: pytest.FixtureRequest) -> Shape:
    """Each shape in turn."""
    return SHAPES[request.param]


@pytest.fixture
def older(shape: Shape, database: Database) -> Database:
    """A database with the older table."""
    database.execute(shape.sql)
    return database


def shape_of(database: Database) -> set[tuple[str, ...]]:
    return {tuple(row.values()) for row in _named(database.execute(SHAPE))}


def _named(rows: list[Row]) -> list[Row]:
    return [{str(place): value for place, value in enumerate(row.values())} for row in rows]


def insert(identity: str, user: str, position: int = 0, status: str = "active") -> str:
    """What the new code writes for a session."""
    previous = f"'{NEW}'" if position else "NULL"
    origin = "renewed" if position else "created"
    return f"""
        INSERT INTO checkout_sessions (id, user_id, status, package, step, data, origin, line_id, line_position,
            line_began_at, previous_session_id, expires_at)
        VALUES ('{identity}', '{user}', '{status}', 'platinum', 'add', '{{"new": true}}', '{origin}', '{NEW}',
            {position}, now(), {previous}, now() + interval '24 hours');
    """


def test_schema_is_that_of_a_fresh_install(older: Database, shape: Shape, new_database: Callable[[], Database]) -> None:
    fresh = new_database()
    fresh.migrate("up")
    said = older.migrate("up")
    assert [words for words in shape.said if words not in said] == []
    wanted = shape_of(fresh)
    found = shape_of(older)
    assert wanted - found == set()
    brought = {row[1].strip('"') for row in found - wanted}
    assert {name for name in brought if not name.startswith("older_")} == {*shape.left}
    assert older.migrate("check") == ""


def test_rows_are_as_the_new_code_wants_them(older: Database, shape: Shape) -> None:
    before = older.rows()
    older.migrate("up")
    after = older.rows()
    assert len(after) == len(before)
    for identity, expected in shape.given.items():
        assert {name: after[identity][name] for name in expected} == expected
    for row in after.values():
        assert (row["line_id"], row["line_position"], row["origin"]) == (row["id"], "0", "created")
        assert row["line_began_at"] == row["created_at"]
    for column in set(shape.left) & next(iter(before.values()), {}).keys():
        assert sorted(str(row[column]) for row in after.values()) == sorted(str(row[column]) for row in before.values())


def test_down_gives_back_shape_and_rows_exactly(older: Database) -> None:
    shape, rows = older.dump(), older.rows()
    for _ in range(3):
        older.migrate("up")
        assert older.migrate("up") == "The schema is at revision 0002.\n"
        older.migrate("down", "base")
        assert older.dump() == shape
        assert older.rows() == rows


def test_down_keeps_what_the_new_code_has_done(older: Database, shape: Shape) -> None:
    before = older.rows()
    told = set(older.dump().splitlines())
    older.migrate("up")
    older.execute(insert(NEW, A, status="invalidated"))
    older.execute(insert(NEXT, "somebody-new", 1))
    older.execute(insert(LAST, A, 2, status="expired"))
    said = older.migrate("down", "base")
    assert [words for words in shape.no_way_back if words not in said] == []
    lost = [line for line in told - set(older.dump().splitlines()) if "CONSTRAINT" not in line]
    assert len(lost) <= len(shape.no_way_back)
    after = older.rows()
    made = after.keys() - before.keys()
    assert {identity: row for identity, row in after.items() if identity not in made} == before
    assert [after[identity]["status"].lower() for identity in sorted(made)] == ["expired", "active", "expired"]
    assert made == {NEW, NEXT, LAST}
    shape_then = older.dump()
    older.migrate("up")
    assert older.migrate("check") == ""
    assert older.rows("id, status, package, user_id", f"id = '{NEW}'")[NEW]["status"] == "expired"
    older.migrate("down", "base")
    assert older.dump() == shape_then
    assert older.rows() == after


def test_new_rows_come_back_in_the_older_columns(database: Database) -> None:
    database.execute(SUPABASE.sql)
    database.migrate("up")
    database.execute(f"UPDATE checkout_sessions SET status = 'invalidated' WHERE id = '{session(2)}'")
    database.execute(insert(NEW, A))
    database.execute(insert(NEXT, "no-uuid", 1))
    database.execute(
        f"""
        UPDATE checkout_sessions
        SET status = 'completed', completed_at = '2026-03-03 10:00Z', payment_reference = 'pi_n'
        WHERE id = '{NEW}';
        UPDATE checkout_sessions SET data = '{{"late": 1}}' WHERE id = '{session(3)}';
        """
    )
    said = database.migrate("down", "base")
    assert 'checkout_sessions_user_id_fkey" binds new rows only' in said
    rows = database.rows("id, user_id, package_id, session_data, status, completed_at, payment_intent_id")
    assert tuple(rows[NEW].values())[1:] == (
        A, "platinum", '{"new": true}', "completed", "2026-03-03 10:00:00+00", "pi_n",
    )  # fmt: skip
    # A user that is no uuid keeps a stable one, which no account has.
    assert rows[NEXT]["user_id"] == "c32ff5f4-e7a5-e8ed-95e3-4ce1d8a46e24" or len(rows[NEXT]["user_id"]) == 36
    assert rows[session(1)]["status"] == "active"  # the takeover's doing, undone
    assert rows[session(2)]["status"] == "expired"  # the new code's
    assert (rows[session(3)]["session_data"], rows[session(3)]["payment_intent_id"]) == ('{"late": 1}', "pi_tried")


def test_an_older_session_that_was_completed_since_comes_back_completed(database: Database) -> None:
    database.execute(TEXT_IDS.sql)
    database.migrate("up")
    database.execute(
        """
        UPDATE checkout_sessions
        SET status = 'completed', completed_at = '2026-03-03 10:00Z', payment_reference = 'pi_n', step = 'thanks'
        WHERE older_id = 'cs_1'
        """
    )
    database.migrate("down", "base")
    row = database.rows()["cs_1"]
    assert (row["status"], row["completed_at"]) == ("completed", "2026-03-03 10:00:00")
    assert row["current_step"] == "0"  # no number, and the older column must have one


def test_policies_go_on_to_tell_users_apart(database: Database) -> None:
    database.execute(SUPABASE.sql)
    database.migrate("up")
    database.execute(insert(NEW, B) + insert(NEXT, "no-uuid", 1))
    database.execute(
        """
        DO $$ BEGIN CREATE ROLE shopper; EXCEPTION WHEN duplicate_object THEN NULL; END $$;
        GRANT USAGE ON SCHEMA auth TO shopper;
        GRANT SELECT, UPDATE ON checkout_sessions TO shopper;
        GRANT shopper TO CURRENT_USER;
        """
    )

    def seen(user: str) -> set[str]:
        with database.connect() as connection, connection.transaction():
            connection.execute("SELECT set_config('request.jwt.claim.sub', %s, true)", [user])
            connection.execute("SET LOCAL ROLE shopper")
            return {str(row["id"]) for row in connection.execute("SELECT id FROM checkout_sessions")}

    assert seen(A) == {session(1), session(2), session(3)}
    assert seen(B) == {session(4), NEW}
    assert seen("") == set()
    database.migrate("down", "base")
    assert seen(B) == {session(4), NEW}


def test_other_tables_keep_their_foreign_keys(database: Database) -> None:
    database.execute(SUPABASE.sql)
    database.migrate("up")
    assert database.refusal(f"INSERT INTO orders (session) VALUES ('{session(9)}')") == "orders_session_fkey"
    database.execute(f"DELETE FROM auth.users WHERE id = '{A}'")
    assert database.rows().keys() == {session(4)}


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        ("VIEW checkout_sessions AS SELECT 1 AS id", "checkout_sessions is there, but is no plain table"),
        ("TABLE checkout_sessions (id uuid, status text) PARTITION BY HASH (id)", "is no plain table"),
        ("TABLE checkout_sessions (key uuid)", "without the column id or status"),
        ("TABLE checkout_sessions (id bigint, status text)", "the column id is of type bigint, neither uuid nor text"),
        ("TABLE checkout_sessions (id uuid, status text, created_at bigint)", "of type bigint holds no time"),
        ("TABLE session_tasks (id uuid)", 'relation "session_tasks" already exists'),
    ],
)
def test_what_cannot_be_taken_over_is_left_alone(database: Database, table: str, sentence: str) -> None:
    database.execute(f"CREATE {table}")
    before = database.dump()
    assert sentence in database.migrate("up", code=1)
    assert database.dump() == before
