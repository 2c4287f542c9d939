"""Load by wrk: closed loop, each client sends its next request as soon as it has the answer to the last."""

import os
import random
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import jwt

SCRIPT = Path(__file__).with_name("create.lua")
SECRET = "a secret of the benchmarks, longer than thirty-two bytes"
USERS = 10_000
MISSING = (
    "The benchmarks need wrk, the load generator: `apt-get install -y wrk` (Debian, Ubuntu), or put it on the PATH."
)


@dataclass(frozen=True)
class Target:
    """What a load sends, and what counts as an answer.

    Args:
        status: of success; every other one is a failure.
        key: of the session's id in the answer.
        prefer: the Prefer header, or nothing.
    """

    status: int
    key: str
    prefer: str = ""


@dataclass(frozen=True)
class Sample:
    """One run of wrk. Latencies in milliseconds, CPU of wrk itself in seconds."""

    requests: int
    seconds: float
    p50: float
    p99: float
    cpu: float
    ids: list[str]

    @property
    def rate(self) -> float:
        """Requests per second."""
        return self.requests / self.seconds


def need_wrk() -> str:
    """The path of wrk, installed if this is root on Debian and it is missing.

    Raises:
        SystemExit: there is none.
    """
    if not shutil.which("wrk") and os.geteuid() == 0 and shutil.which("apt-get"):
        subprocess.run(["apt-get", "install", "-y", "-q", "wrk"], stdout=subprocess.DEVNULL, check=False)
    return shutil.which("wrk") or sys.exit(MISSING)


def user_id(number: int) -> str:
    """The user of that number, from 1."""
    return f"user-{number:06}"


def write_tokens(file: Path, users: int = USERS) -> Path:
    """One token a line, for users 1 to `users`, valid for a day."""
    expires = int(time.time()) + 86_400
    claims = {"role": "authenticated", "aud": "authenticated", "exp": expires, "iat": expires - 86_400}
    lines = (jwt.encode({"sub": user_id(n), **claims}, SECRET, "HS256") for n in range(1, users + 1))
    file.write_text("\n".join(lines) + "\n")
    return file


def run(target: Target, ports: Sequence[int], tokens: Path, clients: int, seconds: int) -> Sample:
    """Send creates for `seconds`, spread over the API processes at `ports`.

    Raises:
        AssertionError: a request was not answered as it should be.
    """
    used = ports[: min(len(ports), clients)]
    out = tokens.with_name("load")
    env = {
        "LOAD_PORTS": " ".join(map(str, used)),
        "LOAD_TOKENS": str(tokens),
        "LOAD_STATUS": str(target.status),
        "LOAD_KEY": target.key,
        "LOAD_PREFER": target.prefer,
        "LOAD_OFFSET": str(random.randrange(USERS)),
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
    duration, requests, answered, wrong, status, socket = map(int, head.split())
    assert requests > 0, "nothing was answered"
    assert (answered, wrong, status, socket) == (requests, 0, 0, 0), f"{head}: {done.stderr[:500]}"
    corrected = {int(value): int(count) for value, count in map(str.split, lines)}
    counts = uncorrected(corrected, duration // (requests // clients) if requests >= clients else 0)
    assert sum(counts.values()) == requests, (sum(counts.values()), requests)
    return Sample(
        requests=requests,
        seconds=duration / 1e6,
        p50=percentile(counts, 0.50) / 1e3,
        p99=percentile(counts, 0.99) / 1e3,
        cpu=after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        ids=[line for n in range(len(used)) for line in out.with_suffix(f".ids.{n + 1}").read_text().split()],
    )


def uncorrected(corrected: dict[int, int], interval: int) -> dict[int, int]:
    """What wrk counted, before it added samples for requests that a constant rate would have sent meanwhile.

    For each latency n of at least twice the mean interval, wrk adds n - interval, n - 2 * interval, ... down to the
    interval (stats_correct). From the largest downwards that can be taken back exactly.

    Args:
        corrected: how often each latency, in microseconds, stands in wrk's histogram.
        interval: microseconds between two requests of one client, as wrk computes it; 0 if it corrected nothing.
    """
    counts = dict(corrected)
    if not interval:
        return counts
    for value in sorted(counts, reverse=True):
        if value < 2 * interval:
            break
        added = value - interval
        while counts[value] and added > interval:
            counts[added] -= counts[value]
            added -= interval
    return {value: count for value, count in counts.items() if count}


def percentile(counts: dict[int, int], share: float) -> float:
    """The smallest value that at least `share` of all counted values do not exceed."""
    left = share * sum(counts.values())
    for value in sorted(counts):
        left -= counts[value]
        if left <= 0:
            return value
    raise ValueError("no values")


def missing(ids: Iterable[str], found: Iterable[str]) -> set[str]:
    """Ids that were answered and are not there."""
    return set(ids) - set(found)
