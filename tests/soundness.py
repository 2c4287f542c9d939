"""What must hold of all sessions and tasks, whatever happened: the last word of the machines and the races."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from datetime import timedelta
from typing import Any

from psycopg import Connection
from sqlalchemy import Engine

from db.invariants import Bounds, examine
from db.lifecycle import Origin, Session, Status
from tests.factories import LIMITS, read_sessions


def violations(sessions: Iterable[Session], whole: bool = True) -> list[str]:
    """What is wrong with these sessions, a sentence each.

    Args:
        sessions: all of the users that they belong to.
        whole: none of them has been deleted.
    """
    sessions = list(sessions)
    lines: dict[Any, list[Session]] = defaultdict(list)
    for session in sessions:
        lines[session.line_id].append(session)
    found = [
        f"{user_id} has {number} active sessions"
        for user_id, number in Counter(s.user_id for s in sessions if s.status is Status.ACTIVE).items()
        if number > 1
    ]
    found += [
        f"{reference} completes {number} sessions"
        for reference, number in Counter(s.payment_reference for s in sessions if s.payment_reference).items()
        if number > 1
    ]
    for line in lines.values():
        found += _of_line(sorted(line, key=lambda s: s.line_position), whole)
    return found + [problem for session in sessions for problem in _of_one(session)]


def _of_line(line: list[Session], whole: bool) -> list[str]:
    name = f"line {line[0].line_id}"
    found = []
    positions = [session.line_position for session in line]
    if len(set(positions)) < len(positions):
        found.append(f"{name} forks: {positions}")
    if whole and positions != list(range(len(line))):
        found.append(f"{name} has gaps: {positions}")
    if len({session.user_id for session in line}) > 1:
        found.append(f"{name} has several users")
    if sum(session.status is Status.COMPLETED for session in line) > 1:
        found.append(f"{name} is completed more than once")
    if any(session.status is Status.ACTIVE for session in line[:-1]):
        found.append(f"{name} is active before its end")
    at = {session.line_position: session for session in line}
    for session in line:
        before = at.get(session.line_position - 1)
        if before and session.previous_session_id != before.id:
            found.append(f"{session.id} does not follow {before.id}")
        if session.line_began_at != line[0].line_began_at:
            found.append(f"{session.id} disagrees on when its line began")
    return found


def _of_one(session: Session) -> list[str]:
    first = session.line_position == 0
    rules = {
        "is completed without a time, or the reverse": (session.status is Status.COMPLETED)
        == (session.completed_at is not None),
        "is completed without a payment, or the reverse": (session.status is Status.COMPLETED)
        == (session.payment_reference is not None),
        "begins a line with the wrong origin or id": first
        == (session.origin is Origin.CREATED)
        == (session.line_id == session.id)
        == (session.previous_session_id is None),
        "expires before it begins": session.expires_at > session.created_at,
    }
    return [f"{session.id} {problem}" for problem, holds in rules.items() if not holds]


def assert_sound(engine: Engine, connection: Connection[Any], whole: bool = True) -> None:
    """Nothing is wrong in the database: by the rules above, and by those that operators ask a live one."""
    wrong = violations(read_sessions(connection), whole)
    assert not wrong, wrong
    never = timedelta(days=3650)
    bounds = Bounds(LIMITS, pending=never, overdue=never, undeleted=never, statement=timedelta(seconds=5))
    with engine.begin() as examined:
        findings = examine(examined, bounds)
    broken = {finding.promise: finding.broken or finding.unknown for finding in findings}
    broken = {promise: rows for promise, rows in broken.items() if rows}
    assert not broken, broken
