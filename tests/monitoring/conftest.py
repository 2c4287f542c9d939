"""Debian's Prometheus, run with the service's own rules."""

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import httpx
import pytest
import yaml

from local.embedded import free_port
from tests.monitoring.install import program
from tests.stack import ROOT, eventually

MONITORING = ROOT / "monitoring"


@pytest.fixture(scope="session")
def promtool() -> str:
    """The path of promtool."""
    return found("promtool")


def found(name: str) -> str:
    """The path of a program of Debian's package."""
    path = program(name)
    if path is None:
        why = "Prometheus is missing: python -m tests.monitoring.install"
        if os.environ.get("CI"):
            pytest.fail(why)
        pytest.skip(why)
    return path


class Prometheus:
    """Scrapes one API every third second, and evaluates the rules every second.

    Args:
        folder: for its configuration and data.
        api_port: of the API, on 127.0.0.1.
    """

    def __init__(self, folder: Path, api_port: int) -> None:
        config: dict[str, Any] = yaml.safe_load((MONITORING / "prometheus.yml").read_text())
        (job,) = config["scrape_configs"]
        del job["dns_sd_configs"]
        job |= {"static_configs": [{"targets": [f"127.0.0.1:{api_port}"]}], "scrape_timeout": "3s"}
        job["scrape_interval"] = "3s"
        config["global"] = {"scrape_interval": "3s", "evaluation_interval": "1s"}
        config["rule_files"] = [str(MONITORING / "alerts.yml")]
        self._file = folder / "prometheus.yml"
        self._file.write_text(yaml.safe_dump(config))
        self._folder = folder
        self._port = free_port()

    def __enter__(self) -> Self:
        options = {
            "config.file": self._file,
            "storage.tsdb.path": self._folder / "data",
            "web.listen-address": f"127.0.0.1:{self._port}",
        }
        with (self._folder / "prometheus.log").open("wb") as log:
            self._process = subprocess.Popen(
                [found("prometheus"), *(f"--{name}={value}" for name, value in options.items())],
                stdout=log,
                stderr=log,
                cwd=self._folder,
            )
        try:
            eventually(lambda: self.ask("query", query="up")["result"], "it scrapes")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(20)

    def ask(self, path: str, **parameters: str) -> dict[str, Any]:
        """One question to its API."""
        response = httpx.get(f"http://127.0.0.1:{self._port}/api/v1/{path}", params=parameters, timeout=10)
        response.raise_for_status()
        found: dict[str, Any] = response.json()["data"]
        return found

    def alerts(self, state: str = "") -> set[str]:
        """The names of the alerts that are pending or firing."""
        return {a["labels"]["alertname"] for a in self.ask("alerts")["alerts"] if state in ("", a["state"])}


class Stopwatch:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    @property
    def seconds(self) -> float:
        """Until now."""
        return time.monotonic() - self._began


def expressions(value: Any) -> list[str]:
    """All `expr` of a dashboard."""
    if isinstance(value, dict):
        return [*([value["expr"]] if "expr" in value else []), *(e for v in value.values() for e in expressions(v))]
    return [e for one in value for e in expressions(one)] if isinstance(value, list) else []


def rules() -> Iterator[dict[str, Any]]:
    """All alerts."""
    for group in yaml.safe_load((MONITORING / "alerts.yml").read_text())["groups"]:
        yield from group["rules"]
