"""A wrong or missing setting stops the process with a sentence that names it."""

import subprocess
import sys
from datetime import timedelta

import pytest

from api.settings import ApiSettings
from db.lifecycle import Limits
from db.settings import DatabaseSettings
from tests.stack import ROOT
from workers.settings import WorkerSettings

GOOD = {
    "DATABASE_URL": "postgresql://someone@localhost/shop",
    "REDIS_URL": "redis://localhost/0",
    "JWT_SECRET": "thirty-two bytes are just enough",
}
NAMES = sorted(name.upper() for name in ApiSettings.model_fields)


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Nothing but the good settings."""
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    for name, value in GOOD.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


def sentence(settings: type[DatabaseSettings]) -> str:
    """The last words of a process that loads these."""
    with pytest.raises(SystemExit) as stopped:
        settings.load()
    return str(stopped.value)


def test_what_is_not_set_has_the_default_of_the_contract() -> None:
    settings = ApiSettings.load()
    assert settings.limits == Limits(ttl=timedelta(hours=24), retention=timedelta(days=7))
    assert (settings.expire_interval_seconds, settings.delete_interval_seconds) == (60, 3600)
    assert settings.redeliver_interval_seconds == 2
    assert (settings.api_host, settings.api_port, settings.flower_port) == ("127.0.0.1", 8000, 5555)
    assert (settings.rate_limit, settings.backlog_limit) == (20, 100_000)


@pytest.mark.parametrize(
    ("settings", "name"),
    [(DatabaseSettings, "DATABASE_URL"), (WorkerSettings, "DATABASE_URL"), (WorkerSettings, "REDIS_URL")],
)
@pytest.mark.parametrize("empty", [False, True])
def test_a_missing_setting_is_named(
    environment: pytest.MonkeyPatch, settings: type[DatabaseSettings], name: str, empty: bool
) -> None:
    environment.setenv(name, "") if empty else environment.delenv(name)
    assert sentence(settings) == f"The setting {name} is missing: set it in the environment (README, Settings)."


def test_all_that_are_missing_are_named_at_once(environment: pytest.MonkeyPatch) -> None:
    environment.delenv("DATABASE_URL")
    environment.delenv("REDIS_URL")
    assert [line.split()[2] for line in sentence(WorkerSettings).splitlines()] == ["DATABASE_URL", "REDIS_URL"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DATABASE_URL", "mysql://localhost/shop"),
        ("DATABASE_URL", "localhost"),
        ("REDIS_URL", "amqp://localhost"),
        ("SESSION_TTL_SECONDS", "0"),
        ("SESSION_TTL_SECONDS", "a day"),
        ("SESSION_RETENTION_SECONDS", "1e300"),
        ("SESSION_RETENTION_SECONDS", "inf"),
        ("SESSION_RETENTION_SECONDS", "nan"),
        ("SESSION_TTL_SECONDS", "1e-9"),
        ("EXPIRE_INTERVAL_SECONDS", "-1"),
        ("DELETE_INTERVAL_SECONDS", "inf"),
        ("REDELIVER_INTERVAL_SECONDS", "0"),
        ("TASK_RETENTION_SECONDS", "86399"),
        ("MAX_ATTEMPTS", "0"),
        ("FLOWER_PORT", "65536"),
        ("API_PORT", "-1"),
        ("JWT_JWKS_URL", "keys"),
        ("RATE_LIMIT", "-1"),
        ("STRICT_RATE_LIMIT", "many"),
        ("HEAD_SECONDS", "0"),
        ("BODY_LIMIT", "0"),
        ("DATA_DEPTH_LIMIT", "1000"),
        ("WAIT_LIMIT", "86400"),
        ("TRUSTED_PROXIES", "10.0.0.1,everyone"),
        ("TRUSTED_PROXIES", "10.0.0.1/8"),
        ("CORS_ORIGINS", "*"),
        ("CORS_ORIGINS", "https://shop.example/,https://other.example"),
        ("CORS_ORIGINS", "https://*.shop.example"),
        ("CORS_ORIGINS", "null"),
        ("METRICS", "yes"),
        ("BACKLOG_LIMIT", "0"),
    ],
)
def test_a_wrong_setting_is_named_and_its_value_is_not_told(
    environment: pytest.MonkeyPatch, name: str, value: str
) -> None:
    environment.setenv(name, value)
    told = sentence(ApiSettings)
    assert told.startswith(f"The setting {name} is wrong: ")
    assert "\n" not in told


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"SESSION_TTL_SECONDS": "60", "SESSION_RETENTION_SECONDS": "59"}, "SESSION_RETENTION_SECONDS"),
        ({"JWT_SECRET": "thirty-one bytes are not enough"}, "JWT_SECRET"),
        ({"JWT_JWKS_URL": "https://shop.test/keys"}, "JWT_JWKS_URL"),
        ({"JWT_SECRET": ""}, "JWT_SECRET"),
    ],
)
def test_settings_that_do_not_go_together_are_named(
    environment: pytest.MonkeyPatch, values: dict[str, str], named: str
) -> None:
    for name, value in values.items():
        environment.setenv(name, value)
    assert named in sentence(ApiSettings)


def test_a_secret_is_not_told(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("DATABASE_URL", "mysql://someone:hunter2@localhost/shop")
    environment.setenv("JWT_SECRET", "hunter2")
    assert "hunter2" not in sentence(ApiSettings)
    environment.setenv("DATABASE_URL", GOOD["DATABASE_URL"])
    assert "hunter2" not in sentence(ApiSettings)


@pytest.mark.parametrize(
    "command",
    [
        "-m api",
        "-m celery -A workers.celery_app worker",
        "-m celery -A beat_schedule beat",
        "-m db.migrate up",
    ],
)
def test_no_process_starts_without_its_settings(command: str) -> None:
    done = subprocess.run(
        [sys.executable, *command.split()], cwd=ROOT, env={}, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 1
    assert done.stderr.startswith("The setting DATABASE_URL is missing: ")
    assert "Traceback" not in done.stderr
