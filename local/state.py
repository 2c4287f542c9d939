"""The state folder: the embedded servers' data, the development secret, logs, and who uses it now."""

import fcntl
import os
import shlex
import shutil
import time
from pathlib import Path
from typing import TextIO

from local.embedded import kept_secret
from local.errors import SetupError

FREE_BYTES = 256 * 1024 * 1024  # a new cluster takes 60 MB, its log grows to 80 MB before the first checkpoint
REMAINS_SECONDS = 30.0  # how long the processes of a killed predecessor may take to stop


class StateFolder:
    """One running stack at a time holds it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.logs = folder / "logs"
        self.environment = folder / "env"
        self.lock = folder / "lock"
        # Every process of the stack holds this one, so that the next start can tell when the last of them is gone.
        self.processes_lock = folder / "processes.lock"
        self._holder: TextIO | None = None

    def create(self) -> None:
        """Make it, or see that it can be used.

        Raises:
            SetupError: it cannot be written, or the disk is full.
        """
        try:
            self.folder.mkdir(mode=0o711, parents=True, exist_ok=True)  # passable: a server may run as another user
            self.logs.mkdir(mode=0o700, exist_ok=True)
            for file in (self.lock, self.processes_lock):
                file.open("a").close()
            if not os.access(self.logs, os.W_OK):
                raise PermissionError(13, "Permission denied")
        except OSError as error:
            raise SetupError(
                f"The state folder {self.folder} cannot be written ({error.strerror}): set STATE_DIR to another one."
            ) from error
        free = shutil.disk_usage(self.folder).free
        if free < FREE_BYTES:
            raise SetupError(
                f"The disk of {self.folder} is full: {free >> 20} MB are free and {FREE_BYTES >> 20} MB are needed; "
                "make room or set STATE_DIR to a folder on another disk."
            )

    def hold(self) -> None:
        """Be the one that uses it, once the processes of a killed predecessor are gone.

        Raises:
            SetupError: another stack runs on it.
        """
        self._holder = self.lock.open("r+")
        if not _try_lock(self._holder):
            raise SetupError(
                f"Another `make up` (process {self._holder.read().strip() or 'unknown'}) runs on {self.folder}: "
                "stop it, or set STATE_DIR, API_PORT and FLOWER_PORT for a second one."
            )
        self._holder.truncate()
        self._holder.write(f"{os.getpid()}\n")
        self._holder.flush()
        deadline = time.monotonic() + REMAINS_SECONDS
        with self.processes_lock.open() as processes:
            while not _try_lock(processes):
                if time.monotonic() > deadline:
                    raise SetupError(f"Processes of an earlier `make up` on {self.folder} do not end: stop them first.")
                time.sleep(0.1)

    def release(self) -> None:
        """Let others use it, as the end of this process does."""
        if self._holder:
            self._holder.close()

    @property
    def is_held(self) -> bool:
        """Whether a stack runs on it."""
        if not self.lock.exists():
            return False
        with self.lock.open() as file:
            return not _try_lock(file, fcntl.LOCK_SH)

    def secret(self) -> str:
        """The development secret, made when there is none."""
        return kept_secret(self.folder / "jwt_secret")

    def publish(self, environment: dict[str, str]) -> None:
        """Leave the running stack's settings for `local.run`; a shell can read the file too."""
        self.environment.touch(mode=0o600)
        self.environment.write_text("".join(f"{name}={shlex.quote(value)}\n" for name, value in environment.items()))

    def published(self) -> dict[str, str]:
        """The running stack's settings, or nothing when none runs."""
        if not self.is_held or not self.environment.exists():
            return {}
        lines = shlex.split(self.environment.read_text())
        return {name: value for name, _, value in (line.partition("=") for line in lines)}

    def withdraw(self) -> None:
        """Take the settings back."""
        self.environment.unlink(missing_ok=True)


def _try_lock(file: TextIO, kind: int = fcntl.LOCK_EX) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
