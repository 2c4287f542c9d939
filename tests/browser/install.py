"""`python -m tests.browser.install`: Chromium from Debian, and the client's tools from npm, where they are missing.

Where they cannot be installed it says why; the tests that need them are skipped then, and fail where CI is set.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

WEB: Final = Path(__file__).resolve().parents[2] / "web"
MODULES: Final = WEB / "node_modules"


def chromium() -> str | None:
    """Where Debian's Chromium is."""
    return shutil.which("chromium")


def has_modules() -> bool:
    """Whether npm's packages are those of the lock file."""
    stamp = MODULES / ".package-lock.json"
    return stamp.exists() and stamp.stat().st_mtime >= (WEB / "package-lock.json").stat().st_mtime


def main() -> int:
    """Install what is missing."""
    missing = [name for name in ("chromium", "npm") if shutil.which(name) is None]
    if missing and not _apt(missing):
        _say(f"The browser tests are skipped: install {' and '.join(missing)} to run them.")
        return 1 if os.environ.get("CI") else 0
    if not has_modules():
        command = ["npm", "ci", "--prefix", str(WEB), "--ignore-scripts", "--no-audit", "--no-fund", "--silent"]
        if subprocess.run(command, check=False).returncode:
            _say("The tests of the client's types and of accessibility are skipped: npm reaches no registry.")
            return 1 if os.environ.get("CI") else 0
        (MODULES / ".package-lock.json").touch()
    return 0


def _say(sentence: str) -> None:
    sys.stdout.write(sentence + "\n")
    sys.stdout.flush()


def _apt(packages: list[str]) -> bool:
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        return False
    _say(f"Installing {' and '.join(packages)} from Debian ...")
    quiet = ["apt-get", "-qq", "-o", "Dpkg::Use-Pty=0"]
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    for command in ([*quiet, "update"], [*quiet, "install", "-y", "--no-install-recommends", *packages]):
        if subprocess.run(command, check=False, env=environment, stdout=subprocess.DEVNULL).returncode:
            return False
    return True


if __name__ == "__main__":
    sys.exit(main())
