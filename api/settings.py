"""What the API needs beside the database and Redis."""

from typing import Annotated, Self

from pydantic import Field, HttpUrl, SecretStr, model_validator

from workers.settings import WorkerSettings


class ApiSettings(WorkerSettings):
    """A secret or a key set to check tokens with is the one thing without a default."""

    api_host: str = "127.0.0.1"
    api_port: Annotated[int, Field(ge=0, le=65_535)] = 8_000
    jwt_secret: SecretStr | None = None
    jwt_jwks_url: HttpUrl | None = None
    jwt_audience: str | None = None
    rate_limit: Annotated[int, Field(ge=0)] = 20  # requests a second and user; 0 is off
    backlog_limit: Annotated[int, Field(ge=1)] = 100_000  # pending tasks; beyond it the API sheds load
    demo: bool = False  # the demo shop at `/`, with tokens for anyone: for development

    @model_validator(mode="after")
    def _one_way_to_check_tokens(self) -> Self:
        if (self.jwt_secret is None) == (self.jwt_jwks_url is None):
            raise ValueError("set either JWT_SECRET or JWT_JWKS_URL")
        if self.jwt_secret is not None and len(self.jwt_secret.get_secret_value().encode()) < 32:
            raise ValueError("JWT_SECRET must be at least 32 bytes long (RFC 7518, 3.2)")
        if self.demo and self.jwt_secret is None:
            raise ValueError("DEMO signs its visitors' tokens and needs JWT_SECRET")
        return self
