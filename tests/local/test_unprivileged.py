"""`make up` by an ordinary user. Whoever runs the tests as one sees that all the time; root becomes one here."""

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.local.running import Running, starts
from tests.stack import ROOT

NOBODY = 65_534
PARTS = ("api", "db", "workers", "local", "tests/local", "tests/stack.py")

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


def _is_open(path: Path) -> bool:
    return all(folder.stat().st_mode & 0o005 == 0o005 for folder in (path, *path.parents))


def _interpreter() -> Path:
    """This Python, or the system's of the same version, where an ordinary user can run it."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for candidate in (Path(sys.executable).resolve(), Path("/usr/bin", version), Path("/usr/local/bin", version)):
        if candidate.exists() and _is_open(candidate.resolve()):
            return candidate
    pytest.skip(f"no {version} that an ordinary user can run")


@pytest.fixture
def checkout() -> Iterator[Path]:
    """A checkout and a Python of nobody's own."""
    packages = Path(sysconfig.get_path("purelib"))
    if not _is_open(packages):
        pytest.skip("the installed packages are closed to an ordinary user")
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        folder = Path(name)
        folder.chmod(0o755)
        for part in PARTS:
            copy = shutil.copytree if (ROOT / part).is_dir() else shutil.copy
            (folder / part).parent.mkdir(exist_ok=True)
            copy(ROOT / part, folder / part)
        subprocess.run([_interpreter(), "-m", "venv", "--without-pip", folder / ".venv"], check=True)
        (own,) = (folder / ".venv" / "lib").glob("python*/site-packages")
        (own / "borrowed.pth").write_text(f"{packages}\n")
        # The system's may be 3.11.0 to 3.11.2, for which redis wants a package that ours does without.
        (own / "async_timeout.py").write_text("from asyncio import timeout\n")
        (folder / "home").mkdir()
        os.chown(folder / "home", NOBODY, NOBODY)
        yield folder


@pytest.fixture
def running(checkout: Path) -> Iterator[Running]:
    python = str(checkout / ".venv" / "bin" / "python")
    with Running(checkout / "home" / "state", python=python, root=checkout) as running:
        running.environment["HOME"] = str(checkout / "home")
        yield running


def test_an_ordinary_user_brings_it_up(running: Running) -> None:
    running.start(user=NOBODY)
    processes = psutil.Process(running.pid).children(recursive=True)
    assert {process.uids().real for process in processes} == {NOBODY}
    assert starts(running) == 1
    assert running.stop() == 0
    assert running.is_gone()

    running.start()  # root goes on with that user's data, as that user
    assert running.child("bin/postgres").uids().real == NOBODY
    assert starts(running) == 2
    assert running.stop() == 0


def test_a_folder_of_somebody_else_is_refused(running: Running) -> None:
    running.folder.mkdir(mode=0o755)
    running.launch(user=NOBODY)
    assert running.process
    assert running.process.wait(60) == 1
    assert running.said == (
        f"The state folder {running.folder} cannot be written (Permission denied): set STATE_DIR to another one.\n"
    )
