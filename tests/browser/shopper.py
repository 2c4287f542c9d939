"""A shopper at the demo shop: what they do, what they see, and the rows that come of it."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import psycopg
from playwright.sync_api import BrowserContext, Locator, Page, expect

from tests.stack import DEADLINE, ROOT, Stack

ARTIFACTS: Final = ROOT / "artifacts" / "browser"
ADA: Final = {"name": "Ada Lovelace", "email": "ada@example.org", "street": "Mill Lane 3", "postcode": "12345"} | {
    "town": "Bath"
}
HEADINGS: Final[dict[str, str | re.Pattern[str]]] = {
    "add": "Good coffee, there before you run out",
    "packages": "How much coffee do you drink?",
    "checkout": "Where should it go?",
    "done": re.compile("your first bag is on its way"),
}


class Shopper:
    """One user in one browser.

    Args:
        stack: the service.
        context: of the browser, with the user's id in its storage.
        database: to look at the rows, and to move the clock.
        user: the user's id.
    """

    def __init__(self, stack: Stack, context: BrowserContext, database: str, user: str) -> None:
        self.stack = stack
        self.context = context
        self.database = database
        self.user = user
        self.faults: list[str] = []
        context.on("page", self._watch)
        self.page = context.new_page()

    def _watch(self, page: Page) -> None:
        page.on("pageerror", lambda error: self.faults.append(f"error: {error}"))
        page.on("console", lambda said: self.faults.append(said.text) if "Content Security" in said.text else None)
        page.on("request", lambda request: self._same_origin(request.url))

    def _same_origin(self, url: str) -> None:
        if not url.startswith((self.stack.url, "about:", "data:")):
            self.faults.append(f"a request to {url}")

    # What they do.

    def visit(self, path: str = "/", page: Page | None = None) -> Page:
        """Open a page and wait for what it has to say."""
        page = page or self.page
        page.goto(self.stack.url + path)
        expect(page.locator("#page-wait")).to_be_hidden()
        return page

    def add(self, coffee: str = "Sidama") -> None:
        """Put a coffee into the basket."""
        self.page.get_by_role("button", name=f"Add {coffee}").click()
        self.sees("packages")

    def choose(self, package: str, page: Page | None = None) -> None:
        """Choose a package."""
        self.package(package, page).click()

    def package(self, package: str, page: Page | None = None) -> Locator:
        """The card of a package."""
        return (page or self.page).get_by_role("button", name=package)

    def chosen(self, package: str, page: Page | None = None) -> None:
        """See that a package is the chosen one."""
        expect(self.package(package, page)).to_have_attribute("aria-pressed", "true")

    def go_to_checkout(self) -> None:
        """From the packages to the checkout."""
        self.page.get_by_role("button", name="Continue to checkout").click()
        self.sees("checkout")

    def fill(self) -> None:
        """Type name and address."""
        for name, value in ADA.items():
            self.page.locator(f"input[name={name}]").fill(value)

    def at_checkout(self, coffee: str = "Sidama") -> None:
        """All of it up to the button that pays."""
        self.visit()
        self.add(coffee)
        self.go_to_checkout()
        self.fill()

    def pay(self) -> None:
        """Press the button that pays."""
        self.page.locator("#pay").click()

    # What they see.

    def sees(self, step: str, page: Page | None = None) -> None:
        """See the page of a step, in the indicator too."""
        page = page or self.page
        expect(page.locator(f"#page-{step} h1")).to_be_visible()
        expect(page.locator(f"#page-{step} h1")).to_have_text(HEADINGS[step])
        expect(page.locator(f".steps a[data-step={step}]")).to_have_attribute("aria-current", "step")

    def hears(self, sentence: str, page: Page | None = None) -> Locator:
        """Read a sentence in the notice."""
        notice = (page or self.page).locator("#notice")
        expect(notice).to_contain_text(sentence)
        return notice

    def hears_nothing(self) -> None:
        """No notice is shown."""
        expect(self.page.locator("#notice")).to_be_empty()

    def photo(self, name: str, page: Page | None = None) -> Path:
        """Keep a screenshot."""
        path = ARTIFACTS / f"{name}.png"
        (page or self.page).screenshot(path=path)
        return path

    # The rows.

    def sessions(self) -> list[tuple[str, str, str]]:
        """Package, status and origin of each of the user's sessions, oldest first."""
        return self._rows(
            "SELECT package, status, origin FROM checkout_sessions WHERE user_id = %s"
            " ORDER BY line_began_at, line_position"
        )

    def tasks(self) -> list[tuple[str, str, str | None]]:
        """Kind, state and refusal of what was asked, in order of acceptance."""
        return self._rows("SELECT kind, state, refusal FROM session_tasks WHERE user_id = %s ORDER BY seq")

    def value(self, columns: str, status: str = "active") -> tuple[Any, ...]:
        """Columns of the user's one session of this status."""
        (row,) = self._rows(f"SELECT {columns} FROM checkout_sessions WHERE user_id = %s AND status = '{status}'")
        return row

    def night_passes(self) -> None:
        """The user's active session gets a day older."""
        with psycopg.connect(self.database, autocommit=True) as connection:
            connection.execute(
                "UPDATE checkout_sessions SET created_at = created_at - interval '24 hours',"
                " expires_at = expires_at - interval '24 hours' WHERE user_id = %s AND status = 'active'",
                [self.user],
            )

    def _rows(self, statement: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.database, autocommit=True) as connection:
            return connection.execute(statement, [self.user]).fetchall()

    def until(self, look: Callable[[], bool], seconds: float = DEADLINE) -> None:
        """Wait for a row, while the browser goes on."""
        for _ in range(int(seconds * 20)):
            if look():
                return
            self.page.wait_for_timeout(50)
        raise AssertionError("it did not come")
