"""`python -m local.run COMMAND ...`: become a command, with the settings of the stack that `make up` runs."""

import os
import shutil
import sys

from local.settings import forget_foreign, given, state_dir
from local.state import StateFolder


def main(command: list[str]) -> None:
    """Whatever the environment sets itself goes before what the stack runs with."""
    if not command:
        sys.exit("Usage: python -m local.run COMMAND [ARGUMENT ...]")
    forget_foreign()
    state = StateFolder(state_dir())
    os.environ.update(state.published() | given())
    if not os.environ.get("DATABASE_URL"):
        sys.exit(f"No stack runs on {state.folder}: start one with `make up`, or set DATABASE_URL and REDIS_URL.")
    program = sys.executable if command[0] == "python" else shutil.which(command[0])
    if program is None:
        sys.exit(f"There is no command {command[0]}.")
    os.execv(program, [program, *command[1:]])  # noqa: S606


if __name__ == "__main__":
    main(sys.argv[1:])
