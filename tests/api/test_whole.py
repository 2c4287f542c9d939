"""After all tests of the HTTP contract: everything that it promises was seen. Runs last (see conftest)."""

import pytest

from api.problems import KINDS
from tests.api.conftest import WHOLE_RUN
from tests.api.contract import Contract
from tests.api.test_openapi import TABLE

# Statuses that no test can bring about for each operation; the edges that make them are the same for all.
GENERAL = {401, 413, 415, 429, 431, 500, 503}


@pytest.fixture(autouse=True)
def everything_ran(request: pytest.FixtureRequest) -> None:
    """These tests judge a whole run."""
    if not request.config.stash[WHOLE_RUN]:
        pytest.skip("not all tests of tests/api were asked for")


def test_each_problem_code_was_seen(contract: Contract) -> None:
    assert set(KINDS) - contract.codes == set()


def test_each_operation_was_seen_to_succeed(contract: Contract) -> None:
    succeeded = {(method.lower(), path) for method, path, status in contract.seen if status < 300}
    assert TABLE - succeeded == set()


def test_each_documented_status_was_seen(contract: Contract) -> None:
    documented = {
        (method.upper(), path, int(status))
        for path, operations in contract.raw["paths"].items()
        for method, operation in operations.items()
        for status in operation["responses"]
        if int(status) not in GENERAL
    }
    assert documented - contract.seen == set()
