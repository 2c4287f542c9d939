"""The fault campaign: a short run here, three long ones and its own test, five planted bugs, in `make test-full`."""

import re
import subprocess
import sys

import pytest

from tests.chaos.mutations import MUTATIONS
from tests.stack import ROOT

pytestmark = pytest.mark.chaos

# What names the breach that a planted bug makes.
BREACHES = {
    "answer_before_the_commit": r"is unknown|^lost: ask|two tasks under one key",
    "outcome_in_a_second_transaction": r"doctor: made_once is broken",
    "no_lock_and_no_guard": r"^changed: |told .* then |doctor: (made_once|completed_once|success_is_there) is broken",
    "expiry_ignores_pending_completes": r"doctor: refused_honestly is broken",
    "redelivery_off": r"^pending: tasks were not finished|^lost: task .* still pending",
}


def campaign(*arguments: str, seconds: float) -> tuple[int, str]:
    """Run one; it is stopped in good order if it takes far longer than it should."""
    command = [sys.executable, "-m", "tests.chaos", "--seconds", str(seconds), *arguments]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            said, _ = process.communicate(timeout=seconds + 240)
        finally:
            process.terminate()
    return process.returncode, said


@pytest.mark.timeout(400)
def test_a_minute_of_faults_breaks_no_promise() -> None:
    status, said = campaign("--gap", "2.5", seconds=40)
    assert status == 0, said
    assert "0 lost, 0 doubled, 0 breaches" in said


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("mutation", MUTATIONS)
def test_a_planted_bug_is_found_and_named(mutation: str) -> None:
    assert set(BREACHES) == set(MUTATIONS)
    for seed in ("5", "6", "7"):  # a race may hide in one run
        status, said = campaign("--mutation", mutation, "--seed", seed, "--gap", "4", seconds=60)
        if status == 1 and re.search(BREACHES[mutation], said, re.MULTILINE):
            return
    pytest.fail(f"{mutation} was not found: {said}")


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("seed", ["101", "202", "303"])
def test_ten_minutes_of_faults_break_no_promise(seed: str) -> None:
    status, said = campaign("--seed", seed, "--gap", "4.5", seconds=600)
    assert status == 0, said
    kills = re.search(r"(\d+) processes killed", said)
    assert kills, said
    assert int(kills[1]) >= 60, said
