"""The database beside the stack, and a clock that tells what was seen."""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import psycopg
import pytest
from psycopg import Connection

Measure = Callable[[str], AbstractContextManager[None]]


@pytest.fixture
def connection(database_url: str) -> Iterator[Connection[Any]]:
    """To the stack's database, in autocommit."""
    with psycopg.connect(database_url.replace("+psycopg", ""), autocommit=True) as connection:
        yield connection


@pytest.fixture
def measured(record_property: Callable[[str, object], None], capsys: pytest.CaptureFixture[str]) -> Measure:
    """Tells how long something took: what the issue asks for is seconds, what a busy machine may take is more."""

    @contextmanager
    def measure(what: str) -> Iterator[None]:
        began = time.monotonic()
        yield
        seconds = round(time.monotonic() - began, 2)
        record_property(what, seconds)
        with capsys.disabled():
            print(f"\n{what}: {seconds} s")  # noqa: T201

    return measure
