"""The local commands beside `make up`: run, tokens, install, and the state folder below them."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections import namedtuple
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import jwt
import pytest

from local import install
from local.errors import SetupError
from local.state import StateFolder
from local.tokens import DEMO_USER, development_token
from tests.stack import ROOT

SECRET = "a secret that is longer than thirty-two bytes"


def local(module: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run one as `make` does."""
    inherited = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    command = [sys.executable, "-m", f"local.{module}", *arguments]
    return subprocess.run(
        command, cwd=ROOT, env=inherited | environment, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.fixture
def state(tmp_path: Path) -> Iterator[StateFolder]:
    """One that a running stack holds."""
    state = StateFolder(tmp_path / "state")
    state.create()
    state.hold()
    state.publish({"DATABASE_URL": "postgresql://embedded/x", "JWT_SECRET": SECRET, "API_PORT": "8001"})
    yield state
    state.release()


def shown(state: StateFolder, *names: str, **environment: str) -> list[str]:
    """What a command under `local.run` sees of the environment."""
    program = "import os, sys; print(*(os.environ.get(name) for name in sys.argv[1:]))"
    done = local("run", "python", "-c", program, *names, STATE_DIR=str(state.folder), **environment)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_a_command_gets_the_settings_of_the_running_stack(state: StateFolder) -> None:
    assert shown(state, "DATABASE_URL", "API_PORT") == ["postgresql://embedded/x", "8001"]


def test_what_the_user_sets_goes_first(state: StateFolder) -> None:
    environment = {"DATABASE_URL": "postgresql://mine/x", "PGHOST": "elsewhere", "API_PORT": ""}
    assert shown(state, *environment, **environment) == ["postgresql://mine/x", "None", "8001"]


def test_the_settings_can_be_read_by_a_shell(state: StateFolder) -> None:
    state.publish({"JWT_SECRET": 'it\'s $HOME; a "secret" # here'})
    done = subprocess.run(
        ["sh", "-c", '. "$0"; printf %s "$JWT_SECRET"', state.environment], capture_output=True, text=True, check=True
    )
    assert done.stdout == 'it\'s $HOME; a "secret" # here'
    assert state.environment.stat().st_mode & 0o777 == 0o600


def test_without_a_stack_a_command_says_so(tmp_path: Path) -> None:
    done = local("run", "python", "-c", "", STATE_DIR=str(tmp_path / "none"))
    assert done.returncode == 1
    assert done.stderr == (
        f"No stack runs on {tmp_path}/none: start one with `make up`, or set DATABASE_URL and REDIS_URL.\n"
    )


def test_settings_that_a_killed_stack_left_count_for_nothing(state: StateFolder) -> None:
    state.release()
    assert state.environment.exists()
    assert local("run", "python", "-c", "", STATE_DIR=str(state.folder)).returncode == 1


def test_an_unknown_command_is_named(state: StateFolder) -> None:
    done = local("run", "no-such-command", STATE_DIR=str(state.folder))
    assert (done.returncode, done.stderr) == (1, "There is no command no-such-command.\n")


def test_a_full_disk_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(1 << 40, 1 << 40, 5 << 20))
    with pytest.raises(SetupError, match=r"is full: 5 MB are free and \d+ MB are needed; make room or set STATE_DIR"):
        StateFolder(tmp_path / "state").create()


def test_a_token_is_a_signed_in_demo_users(tmp_path: Path) -> None:
    done = local("tokens", STATE_DIR=str(tmp_path), JWT_SECRET=SECRET, JWT_AUDIENCE="shop")
    claims = jwt.decode(done.stdout.strip(), SECRET, algorithms=["HS256"], audience="shop")
    assert (claims["sub"], claims["role"]) == (DEMO_USER, "authenticated")


def test_a_token_for_another_user_and_role(tmp_path: Path) -> None:
    done = local("tokens", "me", "service_role", STATE_DIR=str(tmp_path), JWT_SECRET=SECRET)
    claims = jwt.decode(done.stdout.strip(), SECRET, algorithms=["HS256"])
    assert (claims["sub"], claims["role"]) == ("me", "service_role")


def test_a_token_is_made_with_the_secret_of_the_stack_even_before_it_runs(tmp_path: Path) -> None:
    token = local("tokens", STATE_DIR=str(tmp_path / "state")).stdout.strip()
    assert jwt.decode(token, StateFolder(tmp_path / "state").secret(), algorithms=["HS256"])


def test_nobody_can_make_a_token_for_a_key_set(tmp_path: Path) -> None:
    done = local("tokens", STATE_DIR=str(tmp_path), JWT_JWKS_URL="https://example.com/keys")
    assert done.returncode == 1
    assert "JWT_JWKS_URL" in done.stderr


def test_tokens_last_for_days() -> None:
    claims = jwt.decode(development_token(SECRET), SECRET, algorithms=["HS256"])
    assert datetime.fromtimestamp(claims["exp"], UTC) > datetime.now(UTC) + timedelta(days=6)


Version = namedtuple("Version", "major minor micro")


@pytest.fixture
def nothing_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An installer that must refuse before it runs anything."""
    monkeypatch.setattr(install, "VENV", tmp_path / ".venv")
    monkeypatch.setattr(install, "PYTHON", tmp_path / ".venv" / "bin" / "python")
    monkeypatch.setattr(install, "STAMP", tmp_path / ".venv" / "installed")
    monkeypatch.setattr(install, "_run", lambda *_: pytest.fail("it has begun"))


def refusal() -> str:
    """The sentence that the installer ends with."""
    with pytest.raises(SystemExit) as caught:
        install.main()
    return str(caught.value)


@pytest.mark.usefixtures("nothing_installed")
def test_an_older_python_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "version_info", Version(3, 9, 0))
    assert re.match(r"Python 3\.11 or newer is needed and .* is 3\.9: say `make PYTHON=", refusal())


@pytest.mark.usefixtures("nothing_installed")
@pytest.mark.parametrize("module", ["venv", "ensurepip"])
def test_a_missing_module_is_named_with_its_package(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == module else find(name))
    assert refusal().startswith(f"This Python has no module {module}: install it (Debian, Ubuntu: apt-get install")


@pytest.mark.usefixtures("nothing_installed")
@pytest.mark.parametrize("program", ["cc", "make"])
def test_a_missing_compiler_is_named_where_one_is_needed(program: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "version_info", Version(3, 13, 0))
    monkeypatch.setattr(shutil, "which", lambda name: None if name == program else f"/usr/bin/{name}")
    said = refusal()
    assert f"there is no {program}: install a C compiler" in said
    assert "use Python 3.12" in said


@pytest.mark.usefixtures("nothing_installed")
def test_a_disk_too_small_for_the_packages_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(1 << 40, 1 << 40, 5 << 20))
    assert "is full: 5 MB are free" in refusal()


def test_installing_ends_in_one_sentence_when_the_disk_fills_up(monkeypatch: pytest.MonkeyPatch) -> None:
    says = "import sys; sys.exit('OSError: [Errno 28] No space left on device')"
    with pytest.raises(SystemExit, match=r"^Installing uv failed: the disk is full\.$"):
        install._run("Installing uv", [sys.executable, "-c", says], dict(os.environ))
