"""One stack with the demo shop and one Chromium for all tests of this folder; a user of its own for each test."""

import itertools
import os
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Playwright, expect, sync_playwright

from local.servers import EmbeddedPostgres, EmbeddedRedis
from tests.browser.install import chromium, has_modules
from tests.browser.shopper import ARTIFACTS, Shopper
from tests.conftest import create_database
from tests.stack import Process, Stack

ARGUMENTS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

PATIENCE = 30_000.0  # milliseconds; for conditions that normally hold within one second
_users = itertools.count()


def unavailable(why: str) -> None:
    """Skip, but never where CI is set."""
    if os.environ.get("CI"):
        pytest.fail(why)
    pytest.skip(why)


class Shop:
    """The stack behind the demo shop."""

    def __init__(self, stack: Stack, database: str) -> None:
        self.stack = stack
        self.database = database
        self.api = stack.start("api")
        self.worker = stack.start("worker")
        for name in ("maintenance", "beat"):
            stack.start(name)

    def mend(self) -> None:
        """Start what a test left stopped."""
        if not self.api.running:
            self.api = self.stack.start("api")
        if not self.worker.running:
            self.start_worker()

    def restart_api(self) -> None:
        """Kill it, and start another one at the same address."""
        self.api.kill()
        self.api = self.stack.start("api")

    def stop_worker(self) -> None:
        """In good order."""
        self.worker.stop()

    def start_worker(self) -> Process:
        """Again, where it was stopped."""
        self.worker = self.stack.start("worker")
        return self.worker


@pytest.fixture(scope="package")
def shop(postgres: EmbeddedPostgres, template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """Running all the time; who stops a part of it starts it again."""
    folder = tmp_path_factory.mktemp("shop")
    url = create_database(postgres, "browser", template)
    libpq = url.replace("postgresql+psycopg://", "postgresql://", 1)
    with EmbeddedRedis(folder) as redis, Stack(url, redis.url, folder, DEMO="1") as stack:
        yield Shop(stack, libpq)


@pytest.fixture(scope="package")
def playwright() -> Iterator[Playwright]:
    """Playwright's driver. It must end with this folder: its event loop would stand in the way of other tests'."""
    with sync_playwright() as running:
        yield running


@pytest.fixture(scope="package")
def browser(playwright: Playwright) -> Iterator[Browser]:
    """Debian's Chromium."""
    executable = chromium()
    if executable is None:
        unavailable("Chromium is missing: apt-get install chromium")
    ARTIFACTS.mkdir(parents=True, exist_ok=True)
    expect.set_options(timeout=PATIENCE)
    browser = playwright.chromium.launch(executable_path=executable, args=ARGUMENTS, headless=False)
    yield browser
    browser.close()


@pytest.fixture
def shopper(shop: Shop, browser: Browser, request: pytest.FixtureRequest) -> Iterator[Shopper]:
    """A new user in a new profile, in a shop that works. Its parameters are options of the browser's context."""
    shop.mend()
    user = f"demo-{next(_users)}-{os.getpid()}"
    options = {"viewport": {"width": 1380, "height": 900}, "reduced_motion": "reduce"}
    context = browser.new_context(**options | getattr(request, "param", {}))
    context.set_default_timeout(PATIENCE)
    context.add_init_script(f"if (location.host) localStorage.setItem('shop.user', '{user}')")
    shopper = Shopper(shop.stack, context, shop.database, user)
    yield shopper
    context.close()
    assert shopper.faults == []


@pytest.fixture(scope="session")
def modules() -> None:
    """What npm installs."""
    if not has_modules():
        unavailable("npm's packages are missing: python -m tests.browser.install")
