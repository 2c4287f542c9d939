"""What the API needs beside the database and Redis."""

from ipaddress import ip_address, ip_network
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, HttpUrl, SecretStr, model_validator

from db.settings import Seconds
from workers.settings import WorkerSettings

Rate = Annotated[int, Field(ge=0)]  # a second; 0 is off


def listed(value: str | None) -> list[str]:
    """The items of a setting that lists some, with commas between them."""
    return [item.strip() for item in (value or "").split(",") if item.strip()]


def _networks(value: str) -> str:
    for item in listed(value):
        ip_network(item)  # its own error names what is wrong
    return value


def _origins(value: str) -> str:
    for item in listed(value):
        parts = urlsplit(item)
        if parts.scheme not in ("http", "https") or item != f"{parts.scheme}://{parts.netloc}" or "*" in item:
            raise ValueError(f"{item} is not an origin such as https://shop.example")
    return value


class ApiSettings(WorkerSettings):
    """A secret or a key set to check tokens with is the one thing without a default."""

    api_host: str = "127.0.0.1"
    api_port: Annotated[int, Field(ge=0, le=65_535)] = 8_000
    jwt_secret: SecretStr | None = None
    jwt_jwks_url: HttpUrl | None = None
    jwt_audience: str | None = None
    jwt_issuer: str | None = None
    body_limit: Annotated[int, Field(ge=1_024, le=10_485_760)] = 65_536  # bytes of a request's body
    head_limit: Annotated[int, Field(ge=4_096, le=1_048_576)] = 32_768  # bytes of a request's headers
    data_depth_limit: Annotated[int, Field(ge=1, le=64)] = 16  # levels of `data`; recursion reads it elsewhere
    data_values_limit: Annotated[int, Field(ge=1, le=100_000)] = 2_000  # names and values in `data`
    wait_limit: Annotated[int, Field(ge=1, le=300)] = 30  # seconds of a long poll
    history_limit: Annotated[int, Field(ge=1, le=1_000)] = 50  # sessions of a history, each with up to 64 KiB
    history_tasks_limit: Annotated[int, Field(ge=1, le=10_000)] = 500  # tasks of a history
    rate_limit: Rate = 20  # requests a second and user; 0 turns the next two off as well
    strict_rate_limit: Rate = 5  # recover and complete, a second and user: nobody needs more, a thief would
    address_rate_limit: Rate = 200  # requests a second and address: many shoppers can share one
    backlog_limit: Annotated[int, Field(ge=1)] = 100_000  # pending tasks; beyond it the API sheds load
    connection_limit: Rate = 10_000  # open at once; as far as the system's limit of open files allows
    address_connection_limit: Rate = 1_000  # of them from one address
    head_seconds: Seconds = 10  # for a request's headers to arrive, from the first byte or the connection on
    body_seconds: Seconds = 20  # for its body
    send_seconds: Seconds = 60  # for a client to read an answer
    trusted_proxies: Annotated[str, AfterValidator(_networks)] | None = None  # whose X-Forwarded-For counts
    cors_origins: Annotated[str, AfterValidator(_origins)] | None = None  # whose pages may ask; none: their own alone
    docs: bool = True  # /docs and /openapi.json
    metrics: Literal["open", "service", "off"] = "open"  # /metrics: for all, for a service token, for nobody
    demo: bool = False  # the demo shop at `/`, with tokens for anyone: for development

    def trusts(self, host: str) -> bool:
        """Whether an address is a trusted proxy's."""
        networks = listed(self.trusted_proxies)
        return bool(networks) and any(ip_address(host) in ip_network(network) for network in networks)

    @model_validator(mode="after")
    def _one_way_to_check_tokens(self) -> Self:
        if (self.jwt_secret is None) == (self.jwt_jwks_url is None):
            raise ValueError("set either JWT_SECRET or JWT_JWKS_URL")
        if self.jwt_secret is not None and len(self.jwt_secret.get_secret_value().encode()) < 32:
            raise ValueError("JWT_SECRET must be at least 32 bytes long (RFC 7518, 3.2)")
        if self.demo and self.jwt_secret is None:
            raise ValueError("DEMO signs its visitors' tokens and needs JWT_SECRET")
        return self
