"""The machine and the versions that figures belong to."""

import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Final

import psutil

PACKAGES: Final = ("fastapi", "uvicorn", "uvloop", "celery", "psycopg", "sqlalchemy", "redis")


def describe(postgres: str = "", redis: str = "") -> dict[str, str]:
    """What a reader needs to place the figures."""
    return {
        "CPU": f"{_cpu()}, {os.cpu_count()} cores",
        "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "kernel": platform.release(),
        "Python": platform.python_version(),
        **({"PostgreSQL": postgres} if postgres else {}),
        **({"Redis": redis} if redis else {}),
        "packages": ", ".join(f"{name} {version(name)}" for name in PACKAGES),
    }


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
