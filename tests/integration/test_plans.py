"""No statement reads more of a large table than it needs: not with the statistics of today, nor with those of an empty
table, by which a connection may have planned before the table grew."""

import json
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from itertools import takewhile
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from sqlalchemy import Select, TextClause

from db import history, operations, queries, statements, sweeps, vitals
from db.access import Role
from db.engine import OPTIONS
from db.lifecycle import Kind
from local.servers import EmbeddedPostgres
from tests.conftest import create_database
from tests.factories import accept_parameters, make_row, make_task
from tests.integration.conftest import libpq
from tests.integration.explain import (
    Prepared,
    driver_text,
    faults,
    fill,
    keep_autovacuum_away,
    session_id,
    task_id,
    trunk,
)
from workers.rows import store_parameters

BATCH = 20  # rows that a statement is asked for
BOUND = 25 * BATCH  # rows that a step of its plan may read; the tables hold hundreds of times as many
PENDING = [50 * (n + 1) for n in range(BATCH)]  # numbers of rows that `fill` makes
ACTIVE = [50 * n + 2 for n in range(BATCH)]
COMPLETED = [50 * n + 1 for n in range(BATCH)]
RENEWALS = [make_task(Kind.RENEW, session_id(n), user_id=f"user-{n}", package="gold") for n in ACTIVE]

pending = {"id": [task_id(n) for n in PENDING]}
VALUES: dict[str, dict[str, Any]] = {
    "ACCEPT": accept_parameters(RENEWALS),
    "ACCEPTED_BEFORE": pending
    | {"user_id": [f"user-{n}" for n in ACTIVE], "idempotency_key": [f"key-{n}" for n in ACTIVE]},
    "TAKE": pending | {"limit": BATCH},
    "LOAD": pending,
    "PAYMENTS": {"payment_reference": [f"pay-{n}" for n in COMPLETED]},
    "STORE": {
        "changes": json.dumps([{"id": str(session_id(n)), "was": "active", "status": "expired"} for n in ACTIVE]),
        "sessions": store_parameters((), [make_row(f"new-{n}") for n in range(BATCH)], (), "", "")["sessions"],
        "outcomes": json.dumps(
            [{"id": str(task_id(n)), "state": "SUCCESS", "session_id": str(session_id(n))} for n in PENDING]
        ),
        "worker": "here:1",
        "celery_task_id": "celery-1",
    },
    "COUNT_ATTEMPT": pending,
    "ONE_OF_EACH_USER": pending,
}
OF_SWEEPS = {
    "limit": BATCH,
    "retention": timedelta(days=3),
    "interval": timedelta(seconds=2),
    "ids": [session_id(n) for n in (103, 104, 153, 154)],
}
# What the parameters of a new statement are called needs a value here.
OF_OPERATIONS = {"task_id": task_id(51), "new_id": uuid4(), "limit": BATCH}
OF_QUERIES = {
    "task_id": task_id(51),
    "session_id": session_id(52),
    "user_id": "user-52",
    "task_ids": [task_id(n) for n in (*PENDING, *COMPLETED)],
    "session_ids": [session_id(n) for n in ACTIVE],
    "cleanup_id": uuid4(),
    "age": timedelta(days=1),
    "limit": BATCH,
}

OF_HISTORY = {
    "times": [datetime(2026, 1, 1, tzinfo=UTC)],
    "task": "maintenance.expire_sessions",
}

OF_VITALS = {
    "pending_limit": BATCH,
    "overdue_limit": BATCH,
    "given_up_limit": BATCH,
    "tasks": ["maintenance.expire_sessions"],
    "since": datetime.now(UTC),
    **vitals.SPAN,
}


# What the API reads for a shopper, and what it does not do in the role of its page.
SHOPPERS = {"SESSION_BY_ID", "ACTIVE_SESSION", "LOCKED_SESSION", "TASKS_BY_ID", "MAKER", "NEWEST_OF_LINE"} | {
    "NEWEST_ASKED",
    "DONE_AT",
}
OTHERWISE = {"LOCKED_SESSION": Role.NAVIGATOR, "REFUNDS": Role.AUDITOR}


def of_module(module: Any, kind: type) -> dict[str, Any]:
    """The statements that a module holds."""
    found = {name: value for name, value in vars(module).items() if name.lstrip("_").isupper()}
    return {name.lstrip("_"): value for name, value in found.items() if isinstance(value, kind)}


def all_statements() -> dict[str, tuple[Role, str, dict[str, Any]]]:
    """Name -> role, text and values of everything on these pages; a shopper's reads are there as theirs, too."""
    found = {
        name: (Role.ACCEPTOR if name.startswith("ACCEPT") else Role.WORKER, text, VALUES[name])
        for name, text in of_module(statements, str).items()
    }
    found |= {name: (Role.AUDITOR, text, OF_VITALS) for name, text in of_module(vitals, str).items()}
    pages = (
        (sweeps, TextClause, OF_SWEEPS, Role.MAINTENANCE),
        (operations, TextClause, OF_OPERATIONS, Role.OPERATOR),
        (queries, Select, OF_QUERIES, Role.AUDITOR),
        (history, Select, OF_QUERIES | OF_HISTORY, Role.AUDITOR),
    )
    for module, kind, values, role in pages:
        for name, statement in of_module(module, kind).items():
            found[name] = (OTHERWISE.get(name, role), *driver_text(statement, values))
            if name in SHOPPERS:
                own = driver_text(queries.as_reader(statement), values | {"reader": "user-52"})
                found[f"OWN_{name}"] = (OTHERWISE.get(name, Role.READER), *own)
    return found


STATEMENTS = all_statements()


@pytest.fixture(scope="module")
def url(postgres: EmbeddedPostgres, template: str) -> str:
    """A database that the first test finds empty."""
    return create_database(postgres, "plans", template)


@pytest.fixture(scope="module")
def early(url: str) -> Iterator[Prepared]:
    """A connection of the product that used all statements while the tables were empty, which are full now."""
    options = " ".join(f"-c {name}={value}" for name, value in OPTIONS.items())
    with (
        psycopg.connect(libpq(url), autocommit=True, options=options) as connection,
        psycopg.connect(libpq(url), autocommit=True, options="-c synchronous_commit=off") as filler,
    ):
        keep_autovacuum_away(filler)
        prepared = Prepared(connection, STATEMENTS)
        for name in STATEMENTS:
            with suppress(psycopg.errors.DivisionByZero):  # there is nothing to change yet
                prepared.explain(name)
        fill(filler)
        yield prepared


@pytest.fixture(scope="module", params=[{}, {"enable_seqscan": "on"}, {"plan_cache_mode": "force_custom_plan"}])
def late(request: pytest.FixtureRequest, url: str, early: Prepared) -> Iterator[Prepared]:
    """A connection that plans with good statistics: as the product does, free to scan, or for the very values."""
    options = " ".join(f"-c {name}={value}" for name, value in {**OPTIONS, **request.param}.items())
    with psycopg.connect(libpq(url), autocommit=True, options=options) as connection:
        connection.execute("ANALYZE")
        yield Prepared(connection, STATEMENTS)


def all_faults(prepared: Prepared) -> dict[str, list[str]]:
    """Name -> where it reads too much."""
    found = {name: faults(prepared.explain(name), BOUND) for name in STATEMENTS}
    return {name: places for name, places in found.items() if places}


def test_plans_that_were_made_for_empty_tables_serve_large_ones(early: Prepared) -> None:
    by_hand = of_module(operations, TextClause)  # in a process of their own, which plans anew
    assert {name: places for name, places in all_faults(early).items() if name not in by_hand} == {}


def test_a_shopper_is_named_before_the_first_row_is_looked_at(early: Prepared) -> None:
    own = [name for name in STATEMENTS if name.startswith("OWN_")]
    assert len(own) == len(SHOPPERS)
    for name in own:
        above = takewhile(lambda node: "Scan" not in node["Node Type"], trunk(early.explain(name)))
        assert any("One-Time Filter" in node for node in above), name


def test_no_plan_scans_or_sorts_a_large_table(late: Prepared) -> None:
    assert all_faults(late) == {}
