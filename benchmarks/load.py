"""Load by wrk: closed loop, each client sends its next request as soon as it has the answer to the last."""

import os
import random
import resource
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.latencies import percentile, uncorrected

SCRIPT = Path(__file__).with_name("requests.lua")
MISSING = (
    "The benchmarks need wrk, the load generator: `apt-get install -y wrk` (Debian, Ubuntu), or put it on the PATH."
)

PATIENCE = 32  # seconds


@dataclass(frozen=True)
class Target:
    """What a load sends, and what counts as an answer.

    Args:
        status: of success; every other one is a failure.
        key: of the session's id in the answer.
        prefer: the Prefer header, or nothing.
        once: whether each answer names another session.
        state: of the session afterwards, if that can be told.
    """

    status: int
    key: str
    prefer: str = ""
    once: bool = True
    state: str | None = None


@dataclass(frozen=True)
class Sample:
    """One run of wrk.

    Args:
        seconds: that it took.
        p50: milliseconds.
        p99: milliseconds.
        cpu: seconds that wrk itself used.
        ids: one for each answer.
    """

    requests: int
    seconds: float
    p50: float
    p99: float
    cpu: float
    ids: list[str]


def need_wrk() -> str:
    """The path of wrk, installed if this is root on Debian and it is missing.

    Raises:
        SystemExit: there is none.
    """
    if not shutil.which("wrk") and os.geteuid() == 0 and shutil.which("apt-get"):
        subprocess.run(["apt-get", "install", "-y", "-q", "wrk"], stdout=subprocess.DEVNULL, check=False)
    return shutil.which("wrk") or sys.exit(MISSING)


def run(
    target: Target,
    ports: Sequence[int],
    requests: Path,
    clients: int,
    seconds: int,
    offset: int | None = None,
    pause: int = 0,
) -> Sample:
    """Send requests for `seconds`, spread over the API processes at `ports`.

    Where nothing at all was answered in that time, it is tried for twice as long.

    Args:
        requests: a file of them (`benchmarks.requests`), begun anew at its end.
        offset: how many of them to skip; any number if None.
        pause: milliseconds, in the mean, that a client waits before its next request.

    Raises:
        AssertionError: a request was not answered as it should be.
    """
    used = ports[: min(len(ports), clients)]
    out = requests.with_name("load")
    env = {
        "LOAD_PORTS": " ".join(map(str, used)),
        "LOAD_REQUESTS": str(requests),
        "LOAD_STATUS": str(target.status),
        "LOAD_KEY": target.key,
        "LOAD_PREFER": target.prefer,
        "LOAD_OFFSET": str(random.randrange(1_000_000) if offset is None else offset),
        "LOAD_PAUSE": str(pause),
        "LOAD_OUT": str(out),
    }
    argv = [need_wrk(), "-t", str(len(used)), "-c", str(clients), "-d", f"{seconds}s", "--timeout", "30s"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [*argv, "-s", str(SCRIPT), f"http://127.0.0.1:{used[0]}/"], env=env, capture_output=True, text=True, check=False
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0, done.stderr
    head, *lines = out.with_suffix(".latencies").read_text().splitlines()
    duration, count, answered, wrong, status, socket = map(int, head.split())
    if count == 0 and seconds < PATIENCE:
        return run(target, ports, requests, clients, 2 * seconds, offset, pause)
    assert count > 0, f"nothing was answered in {seconds} s"
    assert (answered, wrong, status, socket) == (count, 0, 0, 0), f"{head}: {done.stderr[:500]}"
    corrected = {int(value): int(many) for value, many in map(str.split, lines)}
    counts = uncorrected(corrected, duration // (count // clients) if count >= clients else 0)
    assert sum(counts.values()) == count, (sum(counts.values()), count)
    return Sample(
        requests=count,
        seconds=duration / 1e6,
        p50=percentile(counts, 0.50) / 1e3,
        p99=percentile(counts, 0.99) / 1e3,
        cpu=after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        ids=[line for n in range(len(used)) for line in out.with_suffix(f".ids.{n + 1}").read_text().split()],
    )
