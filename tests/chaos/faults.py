"""What can happen to each process, and a plan of it that a seed repeats."""

import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import psycopg
import redis

from tests.chaos.fleet import MEMBERS, Fleet


@dataclass(slots=True)
class Fault:
    """One fault of the plan, and what came of it.

    `at` is when, in seconds of the campaign; `dice` makes its choices; `missed` is why it could not be struck, e.g. no
    connection was there to be cut.
    """

    kind: str
    at: float
    dice: random.Random
    began: float = 0.0
    ended: float = 0.0
    answered: float | None = None
    healed: float | None = None
    missed: str | None = None
    notes: list[str] = field(default_factory=list)


def _kill_member(kind: str) -> Callable[[Fleet, Fault], None]:
    def kill(fleet: Fleet, fault: Fault) -> None:
        name = fault.dice.choice([name for name, its_kind in MEMBERS.items() if its_kind == kind])
        fleet.kill(name)
        time.sleep(fault.dice.uniform(0.1, 1.5))
        fleet.start(name)

    return kill


def _kill_all(kind: str) -> Callable[[Fleet, Fault], None]:
    def kill(fleet: Fleet, fault: Fault) -> None:
        names = [name for name, its_kind in MEMBERS.items() if its_kind == kind]
        for name in names:
            fleet.kill(name)
        time.sleep(fault.dice.uniform(0.1, 2.0))
        for name in names:
            fleet.start(name)

    return kill


def _kill_child(fleet: Fleet, fault: Fault) -> None:
    children = fleet.children("maintenance")  # the only pool; the others execute by themselves
    if children:
        with suppress(ProcessLookupError):
            os.kill(fault.dice.choice(children), signal.SIGKILL)


def _pause_member(kind: str, longest: float) -> Callable[[Fleet, Fault], None]:
    def pause(fleet: Fleet, fault: Fault) -> None:
        name = fault.dice.choice([name for name, its_kind in MEMBERS.items() if its_kind == kind])
        fleet.signal(name, signal.SIGSTOP)
        time.sleep(fault.dice.uniform(0.5, longest))
        fleet.signal(name, signal.SIGCONT)

    return pause


def _deploy(kind: str) -> Callable[[Fleet, Fault], None]:
    def deploy(fleet: Fleet, fault: Fault) -> None:
        name = fault.dice.choice([name for name, its_kind in MEMBERS.items() if its_kind == kind])
        took = fleet.terminate(name)
        if took > 10:
            fault.notes.append(f"{name} took {took:.1f} s to stop")
        fleet.start(name)

    return deploy


def _kill_redis(fleet: Fleet, fault: Fault) -> None:
    fleet.redis.kill()
    time.sleep(fault.dice.uniform(0.1, 3.0))
    fleet.redis.start()


def _pause_redis(fleet: Fleet, fault: Fault) -> None:
    fleet.redis.pause()
    time.sleep(fault.dice.uniform(0.5, 8.0))
    fleet.redis.resume()


def _flush_redis(fleet: Fleet, fault: Fault) -> None:
    with redis.Redis.from_url(fleet.redis.url, socket_timeout=2) as client:
        client.flushall()


def _cut_redis(fleet: Fleet, fault: Fault) -> None:
    with redis.Redis.from_url(fleet.redis.url, socket_timeout=2) as client:
        client.execute_command("CLIENT", "KILL", "SKIPME", "yes")


def _crash_postgres(fleet: Fleet, fault: Fault) -> None:
    fleet.postgres.kill()
    time.sleep(fault.dice.uniform(0.1, 1.5))
    fleet.postgres.start()


def _stop_postgres_at_once(fleet: Fleet, fault: Fault) -> None:
    """Immediate shutdown: no checkpoint, crash recovery at the next start."""
    assert fleet.postgres.process is not None
    fleet.postgres.process.send_signal(signal.SIGQUIT)
    fleet.postgres.process.wait(30)
    fleet.postgres.process = None
    time.sleep(fault.dice.uniform(0.1, 1.5))
    fleet.postgres.start()


def _pause_postgres(fleet: Fleet, fault: Fault) -> None:
    fleet.postgres.pause()
    time.sleep(fault.dice.uniform(0.5, 4.0))
    fleet.postgres.resume()


def _cut_postgres(fleet: Fleet, fault: Fault) -> None:
    with psycopg.connect(fleet.postgres.superuser_url, connect_timeout=5, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE application_name LIKE 'checkout-sessions%' AND pid <> pg_backend_pid()"
        )


def _lose_doorbells(fleet: Fleet, fault: Fault) -> None:
    """Nobody executes, and then Redis forgets that anybody should."""
    for name in ("worker-1", "worker-2"):
        fleet.kill(name)
    time.sleep(fault.dice.uniform(0.5, 2.0))
    _flush_redis(fleet, fault)
    for name in ("worker-1", "worker-2"):
        fleet.start(name)


# Kind -> (what it does, processes it kills).
KINDS: dict[str, tuple[Callable[[Fleet, Fault], None], int]] = {
    "worker killed": (_kill_member("worker"), 1),
    "all workers killed": (_kill_all("worker"), 2),
    "pool process killed": (_kill_child, 1),
    "worker frozen": (_pause_member("worker", 12.0), 0),
    "worker deployed": (_deploy("worker"), 0),
    "maintenance killed": (_kill_member("maintenance"), 1),
    "api killed": (_kill_member("api"), 1),
    "api frozen": (_pause_member("api", 4.0), 0),
    "api deployed": (_deploy("api"), 0),
    "beat killed": (_kill_member("beat"), 1),
    "both beats killed": (_kill_all("beat"), 2),
    "redis killed": (_kill_redis, 1),
    "redis frozen": (_pause_redis, 0),
    "redis wiped": (_flush_redis, 0),
    "redis connections cut": (_cut_redis, 0),
    "doorbells lost": (_lose_doorbells, 2),
    "postgres killed": (_crash_postgres, 1),
    "postgres stopped at once": (_stop_postgres_at_once, 1),
    "postgres frozen": (_pause_postgres, 0),
    "postgres connections cut": (_cut_postgres, 0),
}
LAST = "doorbells lost"  # with nobody asking any more, so that only the sweep can heal it


def plan(seed: int, seconds: float, gap: float, kinds: list[str]) -> list[Fault]:
    """Faults at random instants, each kind as often as any other, `LAST` last."""
    dice = random.Random(seed)
    faults: list[Fault] = []
    order = _shuffled(kinds, dice)
    at = 3.0
    while at < seconds - 6.0:
        faults.append(Fault(next(order), at, random.Random(dice.random())))
        at += dice.uniform(0.2, 2 * gap - 0.2)
    if LAST in kinds:
        faults.append(Fault(LAST, seconds - 2.0, random.Random(dice.random())))
    return faults


def _shuffled(kinds: list[str], dice: random.Random) -> Iterator[str]:
    while True:
        yield from dice.sample(kinds, len(kinds))


@contextmanager
def exclusively(fleet: Fleet, kind: str) -> Iterator[None]:
    """One fault at a time for each process; different processes may fail together."""
    with fleet.locks.setdefault(_subject(kind), threading.Lock()):
        yield


def _subject(kind: str) -> str:
    for subject in ("postgres", "redis", "beat", "api", "maintenance"):
        if subject in kind:
            return subject
    return "worker"
