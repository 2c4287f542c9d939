"""`make install`: .venv with everything in uv.lock, made by this machine's Python and by nothing that must be there.

A script for the system's Python, whatever its version: it says in a sentence what the machine lacks.
"""

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

UV = "uv==0.13.9"
FREE_BYTES = 1024 * 1024 * 1024  # .venv takes 450 MB; downloads pass through a cache on top of it
BUILT_FROM_SOURCE = (3, 13)  # the embedded Redis has wheels for older Pythons only
ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
STAMP = VENV / "installed"


def main() -> None:
    """Install, unless it is done."""
    stamp = _stamp()
    if PYTHON.exists() and STAMP.exists() and STAMP.read_text() == stamp:
        return
    _check()
    print("Installing into .venv (a minute or two) ...", flush=True)
    environment = _environment()
    _run("Making .venv", [sys.executable, "-m", "venv", *_clear(), str(VENV)], environment)
    _run("Installing uv", [str(PYTHON), "-m", "pip", "install", "--quiet", UV], environment)
    # Not exact: uv itself lives there too, and is in nobody's lock file.
    uv = [str(VENV / "bin" / "uv"), "sync", "--quiet", "--frozen", "--inexact", "--python", str(PYTHON)]
    _run("Installing the packages", uv, environment)
    STAMP.write_text(stamp)


def _stamp() -> str:
    """What an installation depends on; its place counts, since scripts in it name their own."""
    lock = hashlib.sha256((ROOT / "uv.lock").read_bytes()).hexdigest()
    return f"{lock}\n{UV}\n{sys.version}\n{VENV}\n"


def _clear() -> "list[str]":
    """A .venv of another Python is made anew."""
    found = VENV / "pyvenv.cfg"
    version = "{}.{}.".format(*sys.version_info[:2])
    return ["--clear"] if found.exists() and version not in found.read_text() else []


def _check() -> None:
    """Refuse while nothing is done yet."""
    version = "{}.{}".format(*sys.version_info[:2])
    if sys.version_info < (3, 11):  # noqa: UP036 - an older one is what this is about
        sys.exit(f"Python 3.11 or newer is needed and {sys.executable} is {version}: say `make PYTHON=python3.11 ...`.")
    for module in ("venv", "ensurepip"):
        if importlib.util.find_spec(module) is None:
            sys.exit(f"This Python has no module {module}: install it (Debian, Ubuntu: apt-get install python3-venv).")
    if sys.version_info >= BUILT_FROM_SOURCE:
        _check_compiler(version)
    if not os.access(str(ROOT), os.W_OK):
        sys.exit(f"The folder {ROOT} cannot be written, and .venv goes there.")
    free = shutil.disk_usage(str(ROOT)).free
    if free < FREE_BYTES:
        sys.exit(
            f"The disk of {ROOT} is full: {free >> 20} MB are free and {FREE_BYTES >> 20} MB are needed for .venv."
        )


def _check_compiler(version: str) -> None:
    for program in ("cc", "make"):
        if shutil.which(program) is None:
            sys.exit(
                f"With Python {version} the embedded Redis is built from source, and there is no {program}: install a "
                "C compiler (Debian, Ubuntu: apt-get install build-essential), or use Python 3.12 "
                "(make PYTHON=python3.12 ...)."
            )


def _environment() -> "dict[str, str]":
    """The user's, for package indexes and proxies, without what points at another environment."""
    elsewhere = ("PYTHON", "VIRTUAL_ENV", "UV_PROJECT", "UV_PYTHON", "UV_WORKING")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(elsewhere)}
    environment.update(PIP_DISABLE_PIP_VERSION_CHECK="1", PIP_ROOT_USER_ACTION="ignore", UV_PYTHON_DOWNLOADS="never")
    if not os.access(os.path.expanduser("~"), os.W_OK):
        environment.update(PIP_NO_CACHE_DIR="1", UV_NO_CACHE="1")
    return environment


def _run(doing: str, command: "list[str]", environment: "dict[str, str]") -> None:
    done = subprocess.run(
        command,
        cwd=str(ROOT),
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode == 0:
        return
    if "No space left on device" in done.stdout or "os error 28" in done.stdout:
        sys.exit(f"{doing} failed: the disk is full.")
    sys.exit(f"{doing} failed:\n{done.stdout.strip()}")


if __name__ == "__main__":
    main()
