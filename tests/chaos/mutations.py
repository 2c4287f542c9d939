"""Planted bugs, to see that the campaign finds them: `python -m tests.chaos.mutations NAME MODULE ARGUMENT ...`.

Patches the product in this process, from outside, and then runs the module as `python -m MODULE` would.
"""

import asyncio
import re
import runpy
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

SETTLING = 0.05  # seconds between two transactions that should have been one, as on a slow disk


def answer_before_the_commit() -> None:
    """202 first, and the row when there is time."""
    from api.accept import Accepted, Acceptor, Request

    accept = Acceptor.accept
    later: set[asyncio.Task[Accepted]] = set()

    def done(task: asyncio.Task[Accepted]) -> None:
        later.discard(task)
        task.exception()

    async def early(self: Acceptor, request: Request) -> Accepted:
        task = asyncio.create_task(accept(self, request))
        later.add(task)
        task.add_done_callback(done)
        return Accepted(request.id, request.session_id, datetime.now(UTC))

    Acceptor.accept = early  # type: ignore[method-assign]


def outcome_in_a_second_transaction() -> None:
    """Sessions are committed, then the outcomes of the tasks."""
    from db import statements
    from workers.execution import Executor

    store = Executor._store

    class Committing:
        def __init__(self, connection: Any) -> None:
            self.connection = connection

        def execute(self, statement: str, parameters: dict[str, Any]) -> Any:
            if statement is statements.STORE:
                self.connection.execute(statement, parameters | {"outcomes": "[]"})
                self.connection.commit()
                time.sleep(SETTLING)
                parameters = parameters | {"changes": "[]", "sessions": "[]"}
            return self.connection.execute(statement, parameters)

        def __getattr__(self, name: str) -> Any:
            return getattr(self.connection, name)

    def twice(self: Executor, connection: Any, *arguments: Any) -> None:
        store(self, Committing(connection), *arguments)  # type: ignore[arg-type]

    Executor._store = twice  # type: ignore[method-assign]


def no_lock_and_no_guard() -> None:
    """Reads lock nothing, and writes trust what was read."""
    from db import statements

    lock, count = r"FOR NO KEY UPDATE", r"1 / \(.*\)::int"
    guard = r"AND [st]\.(status|state) = (c\.was|'PENDING')"
    for name, planks in {
        "TAKE": [lock],
        "LOAD": [lock],
        "STORE": [guard, count],
    }.items():
        statement = getattr(statements, name)
        for plank in planks:
            statement, found = re.subn(plank, "1" if plank == count else "", statement, flags=re.DOTALL)
            assert found, f"{name} has no {plank}"
        setattr(statements, name, statement)


def expiry_ignores_pending_completes() -> None:
    """Time decides when a completion is executed, not when it was accepted; nor does the sweep wait for it."""
    from sqlalchemy import text

    from db import decisions, sweeps
    from db.lifecycle import Outcome, Refusal, Session, Status, Task

    complete = decisions._complete
    assert sweeps.NOBODY_WAITS.format(session="s") in sweeps._EXPIRE.text
    sweeps._EXPIRE = text(sweeps._EXPIRE.text.replace(f"AND {sweeps.NOBODY_WAITS.format(session='s')}", ""))

    def by_now(shopper: decisions.Shopper, task: Task, addressed: Session | None) -> Outcome:
        if addressed and shopper.effective(addressed) is Status.EXPIRED and not shopper.completion(addressed.line_id):
            shopper.touch(addressed)
            return Outcome(addressed.id, Refusal.SESSION_EXPIRED)
        return complete(shopper, task, addressed)

    decisions._complete = by_now


def redelivery_off() -> None:
    """A doorbell that was lost stays lost."""
    from db import sweeps

    sweeps.ring_again = lambda *_: []


MUTATIONS: dict[str, Callable[[], None]] = {
    mutation.__name__: mutation
    for mutation in (
        answer_before_the_commit,
        outcome_in_a_second_transaction,
        no_lock_and_no_guard,
        expiry_ignores_pending_completes,
        redelivery_off,
    )
}


def main() -> None:
    """Plant the bug, and become the module."""
    name, module, *arguments = sys.argv[1:]
    MUTATIONS[name]()
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
