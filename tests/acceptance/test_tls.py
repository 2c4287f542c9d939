"""TLS to Postgres and Redis by URL, verified: with the right CA all works, with another nothing does."""

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from tests.acceptance.terminator import Authority, Terminator
from tests.stack import Stack, eventually, headers


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """The CA that the servers' certificates are of."""
    return Authority(tmp_path / "authority")


@pytest.fixture
def doors(authority: Authority, database_url: str, redis_url: str) -> Iterator[tuple[Terminator, Terminator]]:
    """TLS before Postgres and before Redis, for the name `localhost`."""
    context = authority.context("localhost")
    postgres, redis = urlsplit(database_url).port, urlsplit(redis_url).port
    assert postgres
    assert redis
    with Terminator(postgres, context, postgres=True) as one, Terminator(redis, context) as other:
        yield one, other


def by_tls(url: str, port: int, host: str, **options: str) -> str:
    """The URL of the same server behind TLS."""
    parts = urlsplit(url)
    scheme = parts.scheme.replace("redis", "rediss")
    query = "&".join(f"{name}={value}" for name, value in options.items())
    user = parts.netloc.rpartition("@")[0]
    return f"{scheme}://{user}@{host}:{port}{parts.path}?{query}"


def urls(database_url: str, redis_url: str, doors: tuple[Terminator, Terminator], ca: Path, host: str) -> list[str]:
    """Both, each verified."""
    return [
        by_tls(database_url, doors[0].port, host, sslmode="verify-full", sslrootcert=str(ca)),
        by_tls(
            redis_url, doors[1].port, host, ssl_cert_reqs="required", ssl_ca_certs=str(ca), ssl_check_hostname="true"
        ),
    ]


def test_everything_works_over_verified_tls(
    database_url: str, redis_url: str, doors: tuple[Terminator, Terminator], authority: Authority, tmp_path: Path
) -> None:
    database, broker = urls(database_url, redis_url, doors, authority.ca, "localhost")
    with Stack(database, broker, tmp_path) as stack:
        stack.start_all()
        asked = headers("shopper", Prefer="wait=30")
        created = httpx.post(f"{stack.url}/api/sessions", json={"package": "p"}, headers=asked, timeout=60)
        assert created.status_code == 201, created.text

        def ready() -> bool:
            checks: dict[str, str] = httpx.get(f"{stack.url}/readyz").json()["checks"]
            return set(checks.values()) == {"ok"}

        eventually(ready, "all is well")
        cleaned = httpx.post(
            f"{stack.url}/api/maintenance/cleanup", headers=headers("", "service_role", Prefer="wait=30"), timeout=60
        )
        assert cleaned.json()["state"] == "SUCCESS"
    assert min(door.served for door in doors) >= 3


@pytest.mark.parametrize("wrong", ["authority", "name"])
def test_nothing_is_sent_to_a_server_that_is_not_the_one(
    wrong: str,
    database_url: str,
    redis_url: str,
    doors: tuple[Terminator, Terminator],
    authority: Authority,
    tmp_path: Path,
) -> None:
    ca = Authority(tmp_path / "another").ca if wrong == "authority" else authority.ca
    host = "localhost" if wrong == "authority" else "127.0.0.1"
    database, broker = urls(database_url, redis_url, doors, ca, host)
    with Stack(database, broker, tmp_path) as stack:
        stack.start("api")
        answer = httpx.post(f"{stack.url}/api/sessions", json={"package": "p"}, headers=headers("shopper"), timeout=60)
        assert (answer.status_code, answer.json()["code"]) == (503, "database_unavailable")
        eventually(lambda: "certificate" in stack.processes[0].log.read_text(), "the log says why")
    assert [door.served for door in doors] == [0, 0]
