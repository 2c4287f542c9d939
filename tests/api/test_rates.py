"""How often a user and an address may ask, of several processes together, with Redis and without."""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator

import httpx
import pytest

from tests.api.asking import begin
from tests.api.conftest import Enter, Service
from tests.api.contract import assert_problem, new_user
from tests.stack import eventually

pytestmark = pytest.mark.usefixtures("tidy")

RATE, STRICT, ADDRESS = 8, 3, 12
SETTINGS = {"RATE_LIMIT": str(RATE), "STRICT_RATE_LIMIT": str(STRICT), "ADDRESS_RATE_LIMIT": str(ADDRESS)}


@pytest.fixture(scope="module")
def pair(service: Service) -> list[str]:
    """Two processes behind a proxy: this test, whose X-Forwarded-For counts."""
    return [service.another_api(**SETTINGS, TRUSTED_PROXIES="127.0.0.0/8") for _ in range(2)]


@pytest.fixture(scope="module")
def lonely(service: Service) -> str:
    """A process without Redis and without a proxy."""
    return service.another_api(**SETTINGS | {"ADDRESS_RATE_LIMIT": "0"}, REDIS_URL="redis://127.0.0.1:9/0")


@pytest.fixture
def addresses() -> Iterator[str]:
    """Ones that no other test uses."""
    return (f"198.51.100.{n}" for n in range(1, 250))


def hammered(ask: Iterable[Callable[[], httpx.Response]], seconds: float) -> tuple[Counter[int], int]:
    """Statuses of as many requests as fit in, and how many of the clock's seconds that touched."""
    seen: Counter[int] = Counter()
    began, until = int(time.time()), time.monotonic() + seconds
    while time.monotonic() < until:
        for one in ask:
            seen[one().status_code] += 1
    return seen, int(time.time()) - began + 1


def test_processes_count_a_users_requests_together(enter: Enter, pair: list[str]) -> None:
    """Two that each counted alone would admit twice as many."""
    user = new_user()
    clients = [enter(user, url=url) for url in pair]
    seen, windows = hammered([lambda c=c: c.get("/api/sessions/current") for c in clients], 3.0)
    assert set(seen) == {404, 429}
    assert seen[404] <= RATE * (windows + 2), f"{seen} in {windows} seconds"
    assert seen[404] >= RATE


def test_without_redis_a_process_goes_by_its_own_count(enter: Enter, lonely: str, service: Service) -> None:
    client = enter(url=lonely)
    seen, windows = hammered([lambda: client.get("/api/sessions/current")], 1.3)
    assert set(seen) == {404, 429}
    assert seen[404] <= RATE * windows
    assert "rates are counted in this process alone" in service.stack.processes[-1].log.read_text()


def test_a_rate_that_is_exceeded_is_a_problem_that_passes(enter: Enter, lonely: str) -> None:
    client = enter(url=lonely)

    def refused() -> httpx.Response | None:
        answers = [client.get("/api/sessions/current") for _ in range(RATE + 1)]
        return next((answer for answer in answers if answer.status_code == 429), None)

    answer = eventually(refused)
    assert_problem(answer, "rate_limited", "retry")
    assert answer.headers["Retry-After"] == "1"
    eventually(lambda: client.get("/api/sessions/current").status_code == 404)


def test_recover_and_complete_are_limited_more_strictly(enter: Enter, pair: list[str]) -> None:
    user = new_user()
    session = begin(enter(user))
    client = enter(user, url=pair[0], X_Forwarded_For="198.51.100.254")
    for verb, body in (("recover", {}), ("complete", {"payment_reference": user})):
        path = f"/api/sessions/{session['id']}/{verb}"

        def refused(path: str = path, body: dict[str, str] = body) -> httpx.Response | None:
            answers = [client.post(path, json=body) for _ in range(STRICT + 1)]
            return next((answer for answer in answers if answer.status_code == 429), None)

        assert_problem(eventually(refused), "rate_limited")
        old = {"sessionId": session["id"]} | ({"paymentReference": user} if verb == "complete" else {})

        def old_refused(path: str = f"/api/{verb}-checkout-session", body: dict[str, str] = old) -> bool:
            return client.post(path, json=body).status_code == 429

        eventually(old_refused, "the old path counts with the new one")


def test_an_address_is_limited_whoever_asks_from_there(enter: Enter, pair: list[str], addresses: Iterator[str]) -> None:
    crowd = [enter(url=pair[0], X_Forwarded_For="198.51.100.250") for _ in range(10)]
    seen, windows = hammered([lambda c=c: c.get("/api/sessions/current") for c in crowd], 1.3)
    assert set(seen) == {404, 429}
    assert seen[404] <= ADDRESS * (windows + 1), "though each of ten users might ask eight times"
    other = enter(url=pair[0], X_Forwarded_For=next(addresses))
    assert other.get("/api/sessions/current").status_code == 404


@pytest.mark.parametrize("authorization", ["", "Bearer x.y.z"])
def test_who_guesses_is_limited(pair: list[str], authorization: str) -> None:
    headers = {"X-Forwarded-For": "198.51.100.251", "Authorization": authorization}
    with httpx.Client(base_url=pair[0], headers=headers) as client:
        seen, windows = hammered([lambda: client.get("/api/sessions/current")], 1.3)
    assert set(seen) == {401, 429}
    assert seen[401] <= ADDRESS * (windows + 1)


def test_what_needs_no_token_is_limited_by_address(pair: list[str]) -> None:
    with httpx.Client(base_url=pair[0], headers={"X-Forwarded-For": "198.51.100.252"}) as client:
        seen, windows = hammered([lambda: client.get("/healthz")], 1.3)
    assert set(seen) == {200, 429}
    assert seen[200] <= ADDRESS * (windows + 1)


def test_a_service_is_not_limited(enter: Enter, pair: list[str]) -> None:
    operator = enter(role="service_role", url=pair[0], X_Forwarded_For="198.51.100.253")
    assert {operator.get("/api/sessions/current").status_code for _ in range(3 * ADDRESS)} == {404}


FORGED = [
    "{fresh}",  # what the client wrote, the proxy appended the rest
    "{fresh}, 10.0.0.1",
    "127.0.0.1, {fresh}",
    "garbage",
    "",
]


@pytest.mark.parametrize("forged", FORGED)
def test_behind_a_trusted_proxy_only_what_it_appended_counts(
    pair: list[str], addresses: Iterator[str], forged: str
) -> None:
    """The client writes another beginning each time; its own address stays the last."""
    own = f"203.0.113.{FORGED.index(forged) + 1}"
    with httpx.Client(base_url=pair[0]) as client:
        ask = lambda: client.get(  # noqa: E731
            "/healthz", headers={"X-Forwarded-For": f"{forged.format(fresh=next(addresses, 'x'))}, {own}"}
        )
        seen, _ = hammered([ask], 1.5)
    assert seen[429] > 0


def test_from_anyone_else_the_header_means_nothing(service: Service, addresses: Iterator[str]) -> None:
    url = service.another_api(RATE_LIMIT="20", ADDRESS_RATE_LIMIT="12", TRUSTED_PROXIES="10.9.8.7")
    with httpx.Client(base_url=url) as client:
        ask = lambda: client.get("/healthz", headers={"X-Forwarded-For": next(addresses, "192.0.2.1")})  # noqa: E731
        seen, windows = hammered([ask], 1.5)
    assert seen[429] > 0
    assert seen[200] <= 12 * windows + 1
