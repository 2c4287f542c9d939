"""axe-core finds no serious fault on any page, light and dark, wide and narrow."""

from typing import Any

import pytest
from playwright.sync_api import Page

from tests.browser.install import MODULES
from tests.browser.shopper import Shopper

LOOKS = [
    pytest.param({"color_scheme": "light"}, id="light"),
    pytest.param({"color_scheme": "dark"}, id="dark"),
    pytest.param({"color_scheme": "light", "viewport": {"width": 390, "height": 844}}, id="phone"),
]


def faults(page: Page) -> list[str]:
    """What axe-core calls serious or critical."""
    page.evaluate((MODULES / "axe-core" / "axe.min.js").read_text())
    found: dict[str, Any] = page.evaluate("axe.run()")
    return [
        f"{fault['id']}: {node['html'][:120]} {node['failureSummary']}"
        for fault in found["violations"]
        if fault["impact"] in ("serious", "critical")
        for node in fault["nodes"]
    ]


@pytest.mark.usefixtures("modules")
@pytest.mark.parametrize("shopper", LOOKS, indirect=True)
def test_axe_finds_no_serious_fault(shopper: Shopper, request: pytest.FixtureRequest) -> None:
    look = request.node.callspec.id
    found: list[str] = []

    def examine(name: str) -> None:
        found.extend(f"{name}: {fault}" for fault in faults(shopper.page))
        shopper.photo(f"{look}-{name}")

    shopper.visit()
    examine("add")
    shopper.add()
    shopper.choose("Crew")
    shopper.chosen("Crew")
    examine("packages")
    shopper.context.set_offline(True)
    shopper.choose("Solo")
    shopper.hears("You are offline.")
    examine("offline")
    shopper.context.set_offline(False)
    shopper.chosen("Solo")
    shopper.night_passes()
    shopper.go_to_checkout()
    shopper.hears("Your checkout had expired.")
    shopper.fill()
    examine("checkout")
    overflow = "document.documentElement.scrollWidth > document.documentElement.clientWidth"
    assert not shopper.page.evaluate(overflow)
    shopper.pay()
    shopper.sees("done")
    examine("done")
    shopper.page.evaluate("localStorage['checkout.session'] = 'unknown'")
    shopper.visit()
    shopper.hears("We could not restore your checkout.")
    examine("lost")
    assert found == []
