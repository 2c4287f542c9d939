"""`python -m tests.monitoring.install`: Prometheus and promtool from Debian, unpacked beside the virtual environment.

Nothing is installed or started on the machine, and it needs no root. Where it cannot be had it says why; the tests that
need it are skipped then, and fail where CI is set.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

FOLDER: Final = Path(__file__).resolve().parents[2] / ".venv" / "prometheus"


def program(name: str) -> str | None:
    """Where `prometheus` or `promtool` is."""
    return shutil.which(name) or shutil.which(name, path=FOLDER / "usr" / "bin")


def main() -> int:
    """Fetch what is missing."""
    if program("prometheus") and program("promtool"):
        return 0
    if shutil.which("apt-get") and _fetch():
        return 0
    sys.stdout.write("The tests of the alerts are skipped: Debian's package prometheus cannot be had.\n")
    return 1 if os.environ.get("CI") else 0


def _fetch() -> bool:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)  # apt downloads as a user of its own
        if not _quietly(["apt-get", "-qq", "download", "prometheus"], folder):
            # The lists may be missing or old, which only root can mend.
            if os.geteuid() != 0 or not _quietly(["apt-get", "-qq", "update"], folder):
                return False
            if not _quietly(["apt-get", "-qq", "download", "prometheus"], folder):
                return False
        (package,) = Path(folder).glob("prometheus_*.deb")
        return _quietly(["dpkg-deb", "-x", str(package), str(FOLDER)], folder)


def _quietly(command: list[str], folder: str) -> bool:
    quiet = subprocess.DEVNULL
    return subprocess.run(command, check=False, cwd=folder, stdout=quiet, stderr=quiet).returncode == 0


if __name__ == "__main__":
    sys.exit(main())
