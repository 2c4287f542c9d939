"""The executor on a real database: once, in order, and nothing but what was asked for."""

from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from psycopg import Connection

from db.lifecycle import Kind, Status
from tests.factories import (
    LIMITS,
    accept,
    add_sessions,
    make_row,
    make_task,
    read_sessions,
    read_tasks,
    states,
)
from workers.execution import Executor
from workers.messages import BATCH_LIMIT


@pytest.fixture
def user() -> str:
    """A user that no other test has."""
    return f"user-{uuid4()}"


def everything(connection: Connection[Any]) -> list[Any]:
    """Both tables, to the last column."""
    query = "SELECT to_jsonb(x) FROM (SELECT * FROM {} ORDER BY id) AS x"
    return [connection.execute(query.format(table)).fetchall() for table in ("checkout_sessions", "session_tasks")]


def test_a_create_makes_its_session_and_says_so(
    connection: Connection[Any], executor: Executor, told: list[UUID], user: str
) -> None:
    task = make_task(Kind.CREATE, user_id=user, package="gold", step="packages", data={"seats": 2, "note": None})
    assert accept(connection, task, request_id="request-1") == [task.id]
    summary = executor.execute([task.id], "celery-1")
    assert (summary.finished, summary.refused, summary.failed) == (1, 0, [])
    assert told == [task.id]
    (row,) = read_tasks(connection, task)
    assert (row["state"], row["result_session_id"], row["refusal"]) == ("SUCCESS", task.session_id, None)
    assert (row["worker"], row["celery_task_id"], row["request_id"]) == ("here:1", "celery-1", "request-1")
    assert (row["attempts"], row["addressed_status"]) == (0, None)
    (session,) = read_sessions(connection, user)
    assert (session.id, session.status, session.package, session.step) == (
        task.session_id,
        "active",
        "gold",
        "packages",
    )
    assert session.data == {"seats": 2}
    assert session.created_at == session.line_began_at == row["finished_at"]
    assert session.expires_at == session.created_at + LIMITS.ttl


def test_a_refusal_is_kept_with_its_reason_and_what_the_session_was(
    connection: Connection[Any], executor: Executor, told: list[UUID], user: str
) -> None:
    done = make_row(user, Status.COMPLETED)
    add_sessions(connection, done)
    task = make_task(Kind.RECOVER, done.id, user_id=user)
    accept(connection, task)
    summary = executor.execute([task.id], "celery-1")
    assert (summary.finished, summary.refused) == (1, 1)
    (row,) = read_tasks(connection, task)
    assert (row["state"], row["refusal"], row["result_session_id"]) == ("FAILURE", "already_completed", done.id)
    assert (row["reason"], row["addressed_status"]) == ("the order is complete", "completed")
    assert told == [task.id]


@pytest.mark.parametrize("redelivered", [False, True])
def test_what_is_delivered_again_is_not_done_again(
    connection: Connection[Any], executor: Executor, told: list[UUID], user: str, redelivered: bool
) -> None:
    create = make_task(Kind.CREATE, user_id=user, package="gold")
    recover = make_task(Kind.RECOVER, uuid4(), user_id=user)
    ids = accept(connection, create, recover)
    executor.execute(ids, "first")
    before = everything(connection)
    told.clear()
    for _ in range(2):
        assert executor.execute([*ids, *ids], "again", redelivered).finished == 0
    assert everything(connection) == before
    assert told == []


def test_a_users_tasks_happen_in_order_of_acceptance_whichever_doorbell_comes(
    connection: Connection[Any], executor: Executor, told: list[UUID], user: str
) -> None:
    creates = [make_task(Kind.CREATE, user_id=user, package=str(n)) for n in range(5)]
    ids = accept(connection, *creates)
    assert ids == [row["id"] for row in read_tasks(connection, *creates)]
    executor.execute([ids[2]], "the third")
    assert told == ids
    sessions = {session.id: session for session in read_sessions(connection, user)}
    assert [sessions[c.session_id].status for c in creates] == [*[Status.INVALIDATED] * 4, Status.ACTIVE]


def test_one_message_mixes_kinds_and_users(connection: Connection[Any], executor: Executor, user: str) -> None:
    one, other = user + "-1", user + "-2"
    overdue = make_row(one, age=timedelta(hours=25))
    add_sessions(connection, overdue)
    first = make_task(Kind.CREATE, user_id=other, package="gold")
    tasks = [
        make_task(Kind.RECOVER, overdue.id, user_id=one),
        first,
        make_task(Kind.RENEW, first.session_id, user_id=other, package="silver"),
        make_task(Kind.COMPLETE, first.session_id, user_id=other, payment_reference=f"pay-{user}"),
        make_task(Kind.RENEW, first.session_id, user_id=other, package="bronze"),
        make_task(Kind.COMPLETE, first.session_id, user_id=other, payment_reference=f"pay-{user}"),
    ]
    ids = accept(connection, *tasks)
    executor.execute(ids[::-1], "mixed")
    assert states(connection, *tasks) == ["SUCCESS"] * 4 + ["already_completed", "SUCCESS"]
    assert [(s.status, s.package) for s in read_sessions(connection, other)] == [
        (Status.COMPLETED, "gold"),
        (Status.INVALIDATED, "silver"),
    ]
    assert sorted(s.status for s in read_sessions(connection, one)) == [Status.ACTIVE, Status.EXPIRED]


def test_users_whom_no_task_names_are_left_alone(connection: Connection[Any], executor: Executor, user: str) -> None:
    mine, theirs = (make_task(Kind.CREATE, user_id=user + n, package="gold") for n in "12")
    accept(connection, mine, theirs)
    executor.execute([mine.id], "mine")
    assert states(connection, mine, theirs) == ["SUCCESS", "PENDING"]


@pytest.mark.parametrize("together", [True, False])
def test_another_users_session_is_as_unknown_as_one_that_never_was(
    connection: Connection[Any], executor: Executor, user: str, together: bool
) -> None:
    theirs = make_row(user + "-2")
    add_sessions(connection, theirs)
    tasks = [
        make_task(Kind.COMPLETE, theirs.id, user_id=user, payment_reference=f"pay-{user}"),
        make_task(Kind.RECOVER, theirs.id, user_id=user),
        make_task(Kind.RENEW, theirs.id, user_id=user, package="gold"),
    ]
    their_own = [make_task(Kind.RECOVER, theirs.id, user_id=theirs.user_id)] if together else []
    executor.execute(accept(connection, *tasks, *their_own), "mine")
    assert states(connection, *tasks) == ["session_not_found", "session_unrecoverable", "SUCCESS"]
    assert read_sessions(connection, user + "-2") == [theirs]
    assert [(s.line_position, s.data) for s in read_sessions(connection, user)] == [(0, {})]


def test_ids_that_nobody_accepted_are_passed_over(executor: Executor) -> None:
    assert executor.execute([uuid4(), uuid4()], "strange").finished == 0
    assert executor.execute([], "empty").finished == 0


def test_all_tasks_that_a_message_names_are_done_however_many_their_users_have(
    connection: Connection[Any], executor: Executor, user: str
) -> None:
    crowd = [make_task(Kind.CREATE, user_id=f"{user}-a", package="gold") for _ in range(4 * BATCH_LIMIT + 1)]
    last = make_task(Kind.CREATE, user_id=f"{user}-b", package="gold")
    accept(connection, *crowd, last)
    executor.execute([crowd[0].id, last.id, crowd[-1].id], "crowded")
    assert set(states(connection, *crowd, last)) == {"SUCCESS"}


@pytest.mark.parametrize(
    "data",
    [
        {"text": "naïve 漢字 🛒 \\ \" ' \t", "": ""},
        {"numbers": [0, -1, 2**53, 1.5, 1e-7, 1e15, 123456789012345678901234567890]},
        {"deep": {"list": [[], {}, [None, True, False, {"null": None}]]}},
        {"%s": "%(id)s $1 {}", "NULL": "NULL", "array": ["{}", '"', "\\"]},
    ],
)
def test_data_comes_out_of_a_renewal_as_it_went_in(
    connection: Connection[Any], executor: Executor, user: str, data: dict[str, Any]
) -> None:
    create = make_task(Kind.CREATE, user_id=user, package="gold", data=data)
    renew = make_task(Kind.RENEW, create.session_id, user_id=user, package='s"il,v{e}r\\')
    executor.execute(accept(connection, create, renew), "data")
    assert [(s.package, s.data) for s in read_sessions(connection, user)] == [("gold", data), (renew.package, data)]
