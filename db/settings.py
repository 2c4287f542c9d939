"""Settings from the environment. Each layer adds its own; a wrong one stops the process and is named."""

import sys
from datetime import timedelta
from typing import Annotated, Self

from pydantic import Field, PostgresDsn, UrlConstraints, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from db.lifecycle import Limits

# Between what a clock tells apart and a hundred years, which dates can hold.
Seconds = Annotated[float, Field(ge=0.001, le=3_155_760_000)]
PostgresUrl = Annotated[PostgresDsn, UrlConstraints(allowed_schemes=["postgresql", "postgres", "postgresql+psycopg"])]


class DatabaseSettings(BaseSettings):
    """What every process that talks to Postgres needs."""

    model_config = SettingsConfigDict(env_ignore_empty=True, extra="ignore")

    database_url: PostgresUrl
    session_ttl_seconds: Seconds = 86_400  # 24 h: a session older than that is expired
    session_retention_seconds: Seconds = 604_800  # 7 days: older and not completed is deleted

    @model_validator(mode="after")
    def _retention_outlives_ttl(self) -> Self:
        """Deletion relies on it: what is deleted is long expired, so no accepted completion can still count on it."""
        if self.session_retention_seconds < self.session_ttl_seconds:
            raise ValueError("SESSION_RETENTION_SECONDS must not be less than SESSION_TTL_SECONDS")
        return self

    @property
    def limits(self) -> Limits:
        """The two lengths of a session's life."""
        return Limits(timedelta(seconds=self.session_ttl_seconds), timedelta(seconds=self.session_retention_seconds))

    @classmethod
    def load(cls) -> Self:
        """Read the environment.

        Raises:
            SystemExit: a setting is wrong or missing; the sentence names it.
        """
        try:
            return cls()
        except ValidationError as error:
            sys.exit("\n".join(_sentence(problem) for problem in error.errors(include_url=False, include_input=False)))


def _sentence(problem: object) -> str:
    assert isinstance(problem, dict)
    name = "_".join(str(part) for part in problem["loc"][:1]).upper()
    if problem["type"] == "missing":
        return f"The setting {name} is missing: set it in the environment (README, Settings)."
    return f"The setting {name} is wrong: {problem['msg']}." if name else f"A setting is wrong: {problem['msg']}."
