"""More work than the workers do: the API sheds and stays quick, and the backlog drains without help."""

import threading
import time
from datetime import timedelta
from statistics import quantiles

import psycopg
from sqlalchemy import text

from db.engine import sync_engine
from tests.stack import Stack, eventually
from workers.maintenance import RING_LIMIT, UNHEARD_LIMIT, Maintenance
from workers.settings import WorkerSettings

LIMIT = 300
CLIENTS = 8


def test_the_api_sheds_past_the_limit_and_the_backlog_drains(stack: Stack) -> None:
    stack.env |= {"BACKLOG_LIMIT": str(LIMIT), "REDELIVER_INTERVAL_SECONDS": "0.5"}
    stack.start("api")
    accepted: list[float] = []
    shed: list[float] = []
    strange: list[str] = []
    enough = threading.Event()

    def ask(user: str) -> None:
        with stack.client(user) as client:
            while not enough.is_set():
                began = time.monotonic()
                answer = client.post("/api/sessions", json={"package": "gold"})
                seconds = time.monotonic() - began
                if answer.status_code == 202:
                    accepted.append(seconds)
                elif answer.status_code == 503 and answer.json()["code"] == "backlog_full":
                    shed.append(seconds)
                    if int(answer.headers["Retry-After"]) < 1:
                        strange.append(answer.text)
                else:
                    strange.append(answer.text)

    clients = [threading.Thread(target=ask, args=(f"user-{n}",), daemon=True) for n in range(CLIENTS)]
    for one in clients:
        one.start()
    try:
        eventually(lambda: len(shed) > 3 * LIMIT, "nobody executes, so it sheds")
    finally:
        enough.set()
        for one in clients:
            one.join()
    assert not strange
    assert LIMIT <= len(accepted) <= LIMIT + CLIENTS
    # It is no slower than it was, give or take what a shared machine does.
    assert quantiles(shed, n=20)[-1] < max(0.5, 5 * quantiles(accepted, n=20)[-1])

    for name in ("worker", "maintenance", "beat"):
        stack.start(name)
    with psycopg.connect(stack.env["DATABASE_URL"].replace("+psycopg", ""), autocommit=True) as connection:
        query = "SELECT count(*) FILTER (WHERE state = 'PENDING'), max(rings) FROM session_tasks"
        eventually(lambda: connection.execute(query).fetchone()[0] == 0, "the backlog drains")  # type: ignore[index]
        assert connection.execute(query).fetchone()[1] < 8  # type: ignore[index]
    with stack.client("user-0") as client:
        eventually(lambda: client.post("/api/sessions", json={"package": "gold"}).status_code == 202, "it accepts")


def test_redelivery_does_not_snowball(database_url: str) -> None:
    """100,000 pending that nobody hears of: a sweep rings for a few, and for none while enough bells wait unheard."""
    settings = WorkerSettings(
        database_url=database_url,
        redis_url="redis://localhost",
        redeliver_interval_seconds=1000,  # nothing is due twice while this test runs
    )
    engine = sync_engine(settings, "test", size=2)
    with psycopg.connect(database_url.replace("+psycopg", ""), autocommit=True) as plain:
        plain.execute(
            "INSERT INTO session_tasks (id, kind, user_id, session_id, payload) "
            "SELECT gen_random_uuid(), 'create', 'user ' || n / 4, gen_random_uuid(), '{}' "
            "FROM generate_series(1, 100000) AS n"
        )
    rung: list[int] = []

    def ring(tasks: object) -> bool:
        rung.append(len(list(tasks)))  # type: ignore[call-overload]
        return True

    waiting = [0]
    maintenance = Maintenance(engine, settings.limits, settings, ring, lambda *_: True, lambda: waiting[0])
    for _ in range(3):
        maintenance.redeliver_tasks()
    assert rung == [RING_LIMIT] * 3
    waiting[0] = UNHEARD_LIMIT
    assert maintenance.redeliver_tasks()["rung"] == 0
    waiting[0] = 0
    for _ in range(100_000 // RING_LIMIT + 3):
        maintenance.redeliver_tasks()
    assert sum(rung) == 100_000, "each once, and then they wait"
    with engine.begin() as connection:
        longest = connection.execute(text("SELECT max(due_at - now()) FROM session_tasks")).scalar_one()
    assert longest <= 16 * timedelta(seconds=settings.redeliver_interval_seconds)
    engine.dispose()
