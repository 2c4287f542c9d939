"""The way that everything goes well, and the ways that shoppers take."""

import json
import re

from playwright.sync_api import expect

from tests.browser.shopper import ADA, ARTIFACTS, Shopper

PAINTED = "performance.getEntriesByType('measure').map((one) => [one.name, one.duration])"


def test_a_shopper_buys_a_coffee(shopper: Shopper) -> None:
    shopper.visit()
    shopper.sees("add")
    shopper.photo("1-add")
    shopper.add("Huila")
    shopper.chosen("Duo")
    shopper.photo("2-packages")
    assert shopper.value("package, step, data") == ("duo", "packages", {"coffee": "huila"})

    shopper.choose("Crew")
    shopper.chosen("Crew")
    assert shopper.sessions() == [("duo", "invalidated", "created"), ("crew", "active", "renewed")]
    expect(shopper.page.get_by_role("timer")).to_have_text(re.compile(r"^2[34]:\d\d:\d\d$"))

    shopper.go_to_checkout()
    shopper.fill()
    shopper.photo("3-checkout")
    shopper.pay()
    shopper.sees("done")
    expect(shopper.page.get_by_role("complementary", name="Your order")).to_contain_text("€42.00")
    shopper.photo("4-done")
    shopper.hears_nothing()
    assert shopper.sessions() == [("duo", "invalidated", "created"), ("crew", "completed", "renewed")]
    step, data, reference = shopper.value("step, data, payment_reference", "completed")
    assert step == "checkout"
    assert data == {"coffee": "huila", "contact": ADA, "payment": reference}
    assert shopper.tasks() == [(kind, "SUCCESS", None) for kind in ("create", "renew", "complete")]


def test_back_to_the_packages_change_and_pay(shopper: Shopper) -> None:
    shopper.at_checkout()
    shopper.page.go_back()
    shopper.sees("packages")
    shopper.until(lambda: shopper.value("step") == ("packages",))
    shopper.choose("Solo")
    shopper.chosen("Solo")
    shopper.hears_nothing()
    shopper.go_to_checkout()
    expect(shopper.page.locator("input[name=street]")).to_have_value(ADA["street"])
    expect(shopper.page.locator("#pay")).to_have_text("Pay €14.00 now")
    shopper.pay()
    shopper.sees("done")
    assert shopper.sessions() == [("duo", "invalidated", "created"), ("solo", "completed", "renewed")]
    assert shopper.value("data", "completed")[0]["contact"] == ADA


def test_a_reload_at_each_step_loses_nothing(shopper: Shopper) -> None:
    shopper.visit()
    shopper.page.reload()
    shopper.add()
    shopper.page.reload()
    shopper.sees("packages")
    shopper.choose("Crew")
    shopper.chosen("Crew")
    shopper.page.reload()
    shopper.chosen("Crew")
    shopper.go_to_checkout()
    shopper.fill()
    shopper.page.locator("input[name=town]").blur()
    shopper.until(lambda: shopper.value("data")[0].get("contact") == ADA)
    shopper.page.reload()
    shopper.sees("checkout")
    for name, value in ADA.items():
        expect(shopper.page.locator(f"input[name={name}]")).to_have_value(value)
    shopper.pay()
    shopper.sees("done")
    shopper.page.reload()
    shopper.sees("done")
    shopper.hears_nothing()
    assert shopper.sessions() == [("duo", "invalidated", "created"), ("crew", "completed", "renewed")]
    assert [kind for kind, _, _ in shopper.tasks()] == ["create", "renew", "complete"]


def test_by_keyboard_alone(shopper: Shopper) -> None:
    shopper.visit()
    press = shopper.page.keyboard.press

    def tab_to(name: str) -> None:
        for _ in range(40):
            press("Tab")
            focused = shopper.page.evaluate("document.activeElement.innerText || document.activeElement.name || ''")
            if name in focused:
                return
        raise AssertionError(f"the Tab key does not reach {name}")

    tab_to("Add Sidama")
    press("Enter")
    shopper.sees("packages")
    expect(shopper.page.locator("#page-packages h1")).to_be_focused()
    tab_to("Crew")
    press("Space")
    shopper.chosen("Crew")
    tab_to("Continue to checkout")
    press("Enter")
    shopper.sees("checkout")
    for name, value in ADA.items():
        tab_to(name)
        shopper.page.keyboard.type(value)
    press("Enter")
    shopper.sees("done")
    expect(shopper.page.locator("#page-done h1")).to_be_focused()
    assert shopper.sessions()[-1] == ("crew", "completed", "renewed")


def test_an_order_after_an_order_is_a_new_line(shopper: Shopper) -> None:
    shopper.at_checkout()
    shopper.pay()
    shopper.sees("done")
    shopper.page.go_back()
    shopper.sees("done")
    shopper.page.get_by_role("button", name="Order another coffee").click()
    shopper.sees("add")
    shopper.add("Mantiqueira")
    assert shopper.sessions() == [("duo", "completed", "created"), ("duo", "active", "created")]


def test_from_click_to_painted(shopper: Shopper) -> None:
    """Measured, not judged: a busy machine is no fault. The figures are kept beside the screenshots."""
    took: dict[str, list[float]] = {}
    for _ in range(8):
        shopper.visit()
        shopper.page.evaluate("import('/shop/shop.js').then(({checkout}) => checkout.forget())")
        shopper.add()
        for package in ("Solo", "Crew"):
            shopper.choose(package)
            shopper.chosen(package)
        expect(shopper.page.locator("#line li")).to_have_count(3)
        for name, duration in shopper.page.evaluate(PAINTED):
            took.setdefault(name, []).append(round(duration, 1))
    figures = {name: {"p50": sorted(all_)[len(all_) // 2], "n": len(all_)} for name, all_ in took.items()}
    ARTIFACTS.joinpath("painted.json").write_text(json.dumps(figures, indent=1))
    assert figures["painted-create"]["n"] == 8
    assert figures["painted-renew"]["n"] == 16
