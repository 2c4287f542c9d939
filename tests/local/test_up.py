"""`make up` with stand-ins for the service's processes: how it starts, heals, stops and refuses."""

import re
import signal
import socket
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import psycopg
import pytest

from local.settings import LocalSettings
from local.state import StateFolder
from local.welcome import welcome
from tests.local.running import STANDINS, Running, starts
from tests.stack import eventually


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A state folder that is not there yet, with what breaks careless quoting in its path."""
    return tmp_path / "state of 100%h"


@pytest.fixture
def running(folder: Path) -> Iterator[Running]:
    with Running(folder) as running:
        yield running


def test_it_serves_stops_in_order_and_keeps_its_data(running: Running, folder: Path) -> None:
    running.start()
    assert running.answers(running.api_port)
    assert running.answers(running.flower_port)
    assert starts(running) == 1
    for name in ("env", "jwt_secret", "postgres_password", "redis_password"):
        assert (folder / name).stat().st_mode & 0o777 == 0o600
    assert running.stop(signal.SIGINT) == 0
    assert running.is_gone()
    assert not (folder / "env").exists()
    stopped = re.findall(r"stopped: (\w+)", (folder / "logs" / "supervisord.log").read_text())
    assert set(stopped[:3]) == {"api", "worker", "flower"}
    assert set(stopped[3:]) == {"postgres", "redis"}

    running.start()
    assert starts(running) == 2
    assert running.stop(signal.SIGTERM) == 0


def test_it_prints_how_to_use_it(running: Running, folder: Path) -> None:
    running.start()
    assert f"http://127.0.0.1:{running.api_port}/docs" in running.said
    assert f"http://127.0.0.1:{running.flower_port}" in running.said
    assert f"made for development, kept in {folder}/jwt_secret" in running.said
    lines = [line for line in running.said.splitlines() if line.startswith(("TOKEN=", "SESSION=$(curl ", "curl "))]
    assert len(lines) == 4
    # They are good shell, and what they would send is what was meant.
    shown = subprocess.run(
        ["bash", "-euc", 'curl() { printf \'%s|\' "$@" >&2; echo \'{"session_id": "S"}\'; }\n' + "\n".join(lines)],
        capture_output=True,
        text=True,
        check=True,
    ).stderr
    assert f"http://127.0.0.1:{running.api_port}/api/sessions|" in shown
    assert f"http://127.0.0.1:{running.api_port}/api/sessions/S|" in shown
    assert '|{"package": "basic"}|' in shown
    assert '|{"payment_reference": "demo-S"}|' in shown


@pytest.mark.parametrize("auth", ["operator:hunter2", None])
def test_it_prints_flowers_password_if_there_is_one(folder: Path, auth: str | None) -> None:
    settings = LocalSettings(
        database_url="postgresql://x/x",  # type: ignore[arg-type]
        redis_url="redis://x",  # type: ignore[arg-type]
        jwt_secret="x" * 32,  # type: ignore[arg-type]
        flower_basic_auth=auth,
    )
    said = welcome(settings, StateFolder(folder), is_secret_made=True)
    assert ("user operator, password hunter2" in said) is (auth is not None)
    assert "Flower  http://127.0.0.1:5555" in said


def test_what_dies_comes_back_and_without_its_runner_all_ends(running: Running) -> None:
    running.start()
    died = [running.child(words) for words in ("standins worker", "standins api", "bin/postgres", "redis-server")]
    for process in died:
        process.kill()
    eventually(lambda: running.answers(running.api_port), "the API answers")
    eventually(lambda: _answers(running), "the database is back with its data")
    for words in ("standins worker", "redis-server"):
        eventually(partial(running.child, words), f"{words} is back")

    running.child("supervisor.supervisord").kill()
    assert running.process
    assert running.process.wait(60) == 1
    assert running.is_gone()
    assert "supervisord has ended" in running.said


def _answers(running: Running) -> bool:
    try:
        return starts(running) == 1
    except psycopg.OperationalError:
        return False


def test_a_kill_leaves_nothing_behind_and_the_next_start_goes_on(folder: Path) -> None:
    with Running(folder) as running:
        running.start()
        running.kill()
        with Running(folder) as following:  # at once: it waits for what is left of the first
            following.start()
            assert starts(following) == 2


def test_it_stops_while_it_starts(running: Running, folder: Path) -> None:
    running.launch()
    eventually((folder / "supervisord.pid").exists, "it has begun")
    assert running.stop() == 0
    assert running.is_gone()


@pytest.mark.parametrize("number", [pytest.param(signal.SIGINT, marks=pytest.mark.slow), signal.SIGKILL])
def test_it_stops_with_the_make_that_runs_it(running: Running, folder: Path, number: signal.Signals) -> None:
    makefile = folder.with_name("Makefile")
    launch = "-I -S local/launch.py --end-with-parent SIGTERM --"
    makefile.write_text(f"up:\n\t@exec {running.arguments[0]} {launch} {' '.join(running.arguments)}\n")
    running.arguments = ["make", "-f", str(makefile), "up"]
    running.start()
    assert running.process
    running.process.send_signal(number)
    eventually(running.is_gone, f"everything is gone after {number.name} to make alone")


def test_the_users_environment_and_a_long_path_are_no_obstacle(tmp_path: Path) -> None:
    foreign = {"PGHOST": "example.invalid", "PGSSLMODE": "verify-full", "PGOPTIONS": "-c nonsense=1"}
    foreign |= {"CELERY_BROKER_URL": "redis://example.invalid", "FLOWER_UNAUTHENTICATED_API": "1", "PYTHONPATH": "/x"}
    with Running(tmp_path / ("long" * 30), environment=foreign) as running:
        running.start()
        seen = (running.folder / "flower.environ").read_text().split()
        assert not set(foreign) & set(seen)
        assert {"FLOWER_PORT", "DATABASE_URL"} <= set(seen)
        server = running.child("bin/postgres")
        assert set(server.environ()) <= {"PATH", "LC_ALL", "TZ", "PG_OOM_ADJUST_FILE"}


def test_a_second_one_needs_a_folder_of_its_own(running: Running, folder: Path) -> None:
    running.start()
    with Running(folder) as second:
        assert second.refuse() == (
            f"Another `make up` (process {running.pid}) runs on {folder}: "
            "stop it, or set STATE_DIR, API_PORT and FLOWER_PORT for a second one.\n"
        )
    assert running.answers(running.api_port)
    with Running(folder.with_name("other")).start() as other:
        assert starts(running) == starts(other) == 1


@pytest.mark.parametrize("setting", ["API_PORT", "FLOWER_PORT"])
def test_a_busy_port_is_named_with_its_setting(running: Running, setting: str) -> None:
    port = int(running.environment[setting])
    with socket.create_server(("127.0.0.1", port)):
        assert running.refuse() == f"Port {port} is in use by another program: set {setting} to a free one.\n"
    assert running.is_gone()


def test_the_same_port_twice_is_refused(running: Running) -> None:
    running.environment["FLOWER_PORT"] = running.environment["API_PORT"]
    assert running.refuse().startswith("API_PORT and FLOWER_PORT are both ")


def test_a_foreign_address_is_refused(running: Running) -> None:
    running.environment["API_HOST"] = "192.0.2.1"
    assert running.refuse() == "API_HOST is 192.0.2.1, which is not an address of this machine.\n"


def test_a_wrong_setting_is_named(running: Running) -> None:
    running.environment["JWT_SECRET"] = "short"
    assert "JWT_SECRET must be at least 32 bytes" in running.refuse()


def test_an_older_state_folder_is_refused(running: Running, folder: Path) -> None:
    (folder / "postgres").mkdir(parents=True)
    (folder / "postgres" / "PG_VERSION").write_text("17\n")
    assert "was made by PostgreSQL 17 and this needs 18: set STATE_DIR" in running.refuse()
    assert running.is_gone()


def test_a_state_folder_that_is_none_is_refused(running: Running, folder: Path) -> None:
    folder.write_text("a file")
    said = running.refuse()
    assert said == (f"The state folder {folder} cannot be written (File exists): set STATE_DIR to another one.\n")


def test_migrations_that_fail_stop_it_with_their_words(folder: Path) -> None:
    with Running(folder, *STANDINS, "migrate") as running:
        assert running.refuse().endswith("The migrations failed: This one refuses.\n")
        assert running.is_gone()


def test_a_process_that_does_not_stay_up_stops_it_with_its_words(folder: Path) -> None:
    with Running(folder, *STANDINS, "worker") as running:
        assert "worker ends as soon as it starts: This one refuses. (more in " in running.refuse()
        assert running.is_gone()
