"""What `make up` and the local commands need from the environment, and what of it they keep out."""

import os
from collections.abc import Iterable
from pathlib import Path

from api.settings import ApiSettings


class LocalSettings(ApiSettings):
    """All settings of the stack. DATABASE_URL and REDIS_URL are the embedded servers' where nobody sets them."""

    state_dir: Path = Path(".local")

    @classmethod
    def names(cls) -> set[str]:
        """The settings as the environment spells them."""
        return {name.upper() for name in cls.model_fields}


# What libpq, Celery, Flower, uvicorn and Python read behind our back. Whoever has set these meant another program.
FOREIGN = ("PG", "CELERY_", "FLOWER_", "UVICORN_", "PYTHON", "SUPERVISOR_")


def state_dir() -> Path:
    """STATE_DIR alone: it is needed before the other settings can be complete."""
    return Path(os.environ.get("STATE_DIR") or LocalSettings.model_fields["state_dir"].default).absolute()


def given() -> dict[str, str]:
    """The settings that the environment holds."""
    return {name: value for name in sorted(LocalSettings.names()) if (value := os.environ.get(name))}


def forget_foreign(keep: Iterable[str] = ()) -> None:
    """Take out of the environment what would change the programs that inherit it."""
    for name in set(os.environ) - LocalSettings.names() - set(keep):
        if name.startswith(FOREIGN):
            del os.environ[name]
