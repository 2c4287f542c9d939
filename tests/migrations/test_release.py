"""A release without downtime, as docs/deploy.md orders it: first the schema, under the running code; then the code."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from uuid_utils.compat import uuid7

from local.servers import EmbeddedPostgres, EmbeddedRedis, _postgres_program
from tests.conftest import create_database
from tests.migrations import release_0001 as old
from tests.migrations.database import Database
from tests.stack import ROOT, Stack, eventually

DEPLOY = (ROOT / "docs" / "deploy.md").read_text()
AT_0001 = """
from alembic import command
from db.migrate import configuration, migrating
with migrating() as connection:
    command.upgrade(configuration(connection), "0001")
"""


def test_code_of_the_release_before_goes_on_with_the_newest_schema(database: Database) -> None:
    """It connects as the login; every statement does what it did."""
    database.migrate("up")
    with database.connect() as sql:

        def rows(statement: str, **values: Any) -> list[Any]:
            return [next(iter(row.values())) for row in sql.execute(statement.encode(), values).fetchall()]

        first, second, create, complete, run = (uuid7() for _ in range(5))
        for kind, task, session in (("create", create, first), ("complete", complete, first)):
            asked = {"id": task, "kind": kind, "session_id": session, "addressed": [session], "payload": "{}"}
            assert rows(old.ACCEPT, **asked) == [task]
            assert rows(old.ACCEPT, **asked) == []
        assert rows(old.TAKE, id=complete) == [create, complete]
        assert rows(old.COUNT_ATTEMPT, id=create) == rows(old.RING_AGAIN, id=create) == [create]
        assert rows(old.ADD, id=first) == [first]
        assert rows(old.FINISH, id=create, session_id=first) == [create]
        assert rows(old.LOAD) == [first]
        assert rows(old.NAVIGATE, session_id=first) == [first]
        assert rows(old.CHANGE, session_id=first, status="completed", paid="pi_1") == [first]
        assert rows(old.FINISH, id=complete, session_id=first) == [complete]
        assert rows(old.ADD, id=second) == rows(old.EXPIRE) == [second]
        assert rows(old.BEGIN_RUN, id=run) == rows(old.END_RUN, id=run) == [run]
        assert rows(old.DELETE) == [1]
        assert rows(old.PURGE, id=create) == ["create"]
        assert rows("SELECT id FROM checkout_sessions") == [first]
    assert database.migrate("check") == ""


@pytest.fixture
def new_server(tmp_path: Path) -> Iterator[EmbeddedPostgres]:
    """One on which nothing was ever migrated: it has no roles but the login's."""
    with EmbeddedPostgres(tmp_path / "server") as server:
        yield server


def migrate(url: str, *arguments: str) -> None:
    """`python -m db.migrate`."""
    command = [sys.executable, "-m", "db.migrate", *arguments]
    subprocess.run(command, cwd=ROOT, env={"DATABASE_URL": url}, check=True, capture_output=True)


def redis_of(redis_server: EmbeddedRedis, number: int) -> str:
    """A database number of that Redis."""
    return redis_server.url.rsplit("/", 1)[0] + f"/{number}"


def test_new_code_waits_for_its_schema_and_goes_on_when_it_is_there(
    new_server: EmbeddedPostgres, redis_server: EmbeddedRedis, tmp_path: Path
) -> None:
    url = new_server.url
    subprocess.run([sys.executable, "-c", AT_0001], cwd=ROOT, env={"DATABASE_URL": url}, check=True)
    with Stack(url, redis_of(redis_server, 5), tmp_path) as stack, stack.client("ann", Prefer="wait=20") as ann:
        stack.start_all()
        ready = ann.get("/readyz")
        assert (ready.status_code, ready.json()["accept"]) == (503, False)
        checks = ready.json()["checks"]
        assert (checks["postgres"], checks["schema"]) == ("ok", "missing: run the migrations")
        assert ann.post("/api/sessions", json={"package": "silver"}).status_code in {500, 503}
        migrate(url, "up")
        eventually(lambda: ann.get("/readyz").json()["execute"], "nothing was started anew")
        created = eventually(lambda: (a := ann.post("/api/sessions", json={"package": "silver"})).is_success and a)
        assert created.json()["result"]["status"] == "active"
        assert all(process.running for process in stack.processes)


def test_a_dump_of_postgres_alone_brings_the_service_back(
    postgres: EmbeddedPostgres, new_server: EmbeddedPostgres, redis_server: EmbeddedRedis, tmp_path: Path
) -> None:
    """On another server, with an empty Redis: what was done is there, what was pending is executed."""
    url = create_database(postgres, "backed_up")
    migrate(url, "up")
    with Stack(url, redis_of(redis_server, 4), tmp_path) as before:
        before.start("api")
        worker = before.start("worker")
        with before.client("ann", Prefer="wait=20") as ann:
            first = ann.post("/api/sessions", json={"package": "silver", "data": {"seats": 2}}).json()["session_id"]
            worker.kill()
            ann.headers["Prefer"] = "wait=0"
            renewal = ann.post(f"/api/sessions/{first}/renew", json={"package": "gold"}).json()["task_id"]
        to_dump, to_restore = re.findall(r"^```sh\n(.*?)^```$", DEPLOY, re.MULTILINE | re.DOTALL)
        variables = {"PG": url.replace("+psycopg", ""), "NEW": new_server.libpq_url}
        shell(to_dump.replace("checkout.dump", f"{tmp_path}/dump"), **variables)
    shell(to_restore.replace("checkout.dump", f"{tmp_path}/dump"), **variables)
    migrate(new_server.url, "check")
    with Stack(new_server.url, redis_of(redis_server, 5), tmp_path) as after:
        after.start_all()
        with after.client("ann", Prefer="wait=20") as ann:
            task = eventually(lambda: done(ann, renewal), "what was pending is executed")
            assert (task["result"]["package"], task["result"]["data"]) == ("gold", {"seats": 2})
            assert ann.get(f"/api/sessions/{first}").json()["successor_id"] == task["session_id"]
            paid = ann.post(f"/api/sessions/{task['session_id']}/complete", json={"payment_reference": "pi_1"})
            assert paid.json()["result"]["status"] == "completed"
    with psycopg.connect(new_server.libpq_url) as sql:
        assert sql.execute("SELECT count(*) FROM session_tasks WHERE state = 'PENDING'").fetchone() == (0,)


def shell(script: str, **variables: str) -> None:
    """Lines of docs/deploy.md, with Postgres' programs at hand."""
    programs = [_postgres_program("psql").parent, Path(sys.executable).parent]
    path = os.pathsep.join([*map(str, programs), os.environ["PATH"]])
    done = subprocess.run(
        ["bash", "-euc", script], cwd=ROOT, env={"PATH": path, **variables}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def done(client: httpx.Client, task_id: str) -> Any:
    """The task, once it is a success."""
    task = client.get(f"/api/tasks/{task_id}").json()
    return task if task.get("state") == "SUCCESS" else None
