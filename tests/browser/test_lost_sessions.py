"""What happens to a session while the shopper looks away."""

import pytest
from playwright.sync_api import expect

from tests.browser.shopper import Shopper

RESTORED = "Your checkout had expired. We restored it with everything in it."
LOST = "We could not restore your checkout. Please start it again."
MOVED = "Your checkout went on elsewhere. This is its latest version."


def test_expired_overnight_and_the_tab_is_still_open(shopper: Shopper) -> None:
    shopper.visit()
    shopper.add("Huila")
    shopper.night_passes()
    shopper.page.get_by_role("button", name="Continue to checkout").click()
    shopper.sees("checkout")
    shopper.hears(RESTORED)
    shopper.photo("overnight")
    assert shopper.sessions() == [("duo", "expired", "created"), ("duo", "active", "recovered")]
    shopper.until(lambda: shopper.value("step") == ("checkout",))
    assert shopper.value("data")[0]["coffee"] == "huila"
    shopper.fill()
    shopper.pay()
    shopper.sees("done")
    assert shopper.sessions()[-1] == ("duo", "completed", "recovered")


def test_expired_overnight_and_the_page_is_opened_again(shopper: Shopper) -> None:
    shopper.at_checkout()
    shopper.page.locator("input[name=town]").blur()
    shopper.until(lambda: "Bath" in str(shopper.value("data")))
    shopper.night_passes()
    shopper.page.reload()
    shopper.sees("checkout")
    shopper.hears(RESTORED)
    expect(shopper.page.locator("input[name=town]")).to_have_value("Bath")
    assert shopper.sessions() == [("duo", "expired", "created"), ("duo", "active", "recovered")]


def test_expired_overnight_and_the_shopper_pays(shopper: Shopper) -> None:
    shopper.at_checkout()
    shopper.page.locator("input[name=town]").blur()
    shopper.until(lambda: "Bath" in str(shopper.value("data")))
    reference = shopper.value("data")[0]["payment"]
    shopper.night_passes()
    shopper.pay()
    shopper.sees("done")
    assert shopper.tasks()[1:] == [
        ("complete", "FAILURE", "session_expired"),
        ("recover", "SUCCESS", None),
        ("complete", "SUCCESS", None),
    ]
    assert shopper.sessions() == [("duo", "expired", "created"), ("duo", "completed", "recovered")]
    assert shopper.value("payment_reference", "completed") == (reference,)


def test_expired_overnight_and_the_shopper_changes_the_package(shopper: Shopper) -> None:
    shopper.visit()
    shopper.add()
    shopper.night_passes()
    shopper.choose("Solo")
    shopper.chosen("Solo")
    assert shopper.sessions() == [("duo", "expired", "created"), ("solo", "active", "recovered")]


def test_the_button_that_lets_a_night_pass(shopper: Shopper) -> None:
    shopper.visit()
    shopper.add()
    shopper.page.get_by_role("button", name="Let a night pass").click()
    expect(shopper.page.locator("#said")).to_contain_text("A night has passed")
    shopper.choose("Crew")
    shopper.chosen("Crew")
    assert shopper.sessions() == [("duo", "expired", "created"), ("crew", "active", "recovered")]


def test_paid_for_what_was_shown_though_another_cart_is_live(shopper: Shopper) -> None:
    """The old device showed Duo and took money for Duo; meanwhile another device holds Crew."""
    shopper.at_checkout()
    shopper.page.locator("input[name=town]").blur()
    shopper.until(lambda: "Bath" in str(shopper.value("data")))
    shopper.night_passes()
    with shopper.stack.client(shopper.user, Prefer="wait=20") as other_device:
        other_device.post("/api/sessions", json={"package": "crew", "data": {"coffee": "huila"}}).raise_for_status()
    shopper.pay()
    shopper.sees("done")
    expect(shopper.page.get_by_role("complementary", name="Your order")).to_contain_text("Duo, 500 g")
    package, data = shopper.value("package, data", "completed")
    assert (package, data["coffee"]) == ("duo", "sidama")


@pytest.mark.parametrize("stored", ["01a20ce3-bc08-7644-9f29-4493e6ffdb57", "cs_old_shop_17"])
def test_an_unknown_id_in_storage(shopper: Shopper, stored: str) -> None:
    shopper.context.add_init_script(
        f"if (!sessionStorage.once) sessionStorage.once = localStorage['checkout.session'] = '{stored}'"
    )
    shopper.visit("/checkout")
    shopper.sees("add")
    notice = shopper.hears(LOST)
    shopper.photo("unknown-id")
    assert [task[::2] for task in shopper.tasks()] == [("recover", "session_unrecoverable")]
    notice.get_by_role("button", name="Choose a coffee").click()
    shopper.hears_nothing()
    shopper.add()
    assert shopper.sessions() == [("duo", "active", "created")]


@pytest.mark.parametrize("stored", ["no / such? #id", "..", ""])
def test_no_id_at_all_in_storage(shopper: Shopper, stored: str) -> None:
    shopper.context.add_init_script(f"localStorage['checkout.session'] ??= '{stored}'")
    shopper.visit("/checkout")
    shopper.sees("add")
    shopper.hears("You have no open checkout. Choose a coffee to begin.")
    shopper.add()
    shopper.hears_nothing()
    assert shopper.tasks() == [("create", "SUCCESS", None)]


def test_an_unknown_id_in_storage_while_another_session_lives(shopper: Shopper) -> None:
    shopper.visit()
    shopper.add()
    shopper.page.evaluate("localStorage['checkout.session'] = '01a20ce3-bc08-7644-9f29-4493e6ffdb57'")
    shopper.page.reload()
    shopper.sees("packages")
    shopper.choose("Crew")
    shopper.chosen("Crew")
    assert shopper.sessions() == [("duo", "invalidated", "created"), ("crew", "active", "renewed")]


def test_no_id_in_storage_on_another_device(shopper: Shopper) -> None:
    with shopper.stack.client(shopper.user, Prefer="wait=20") as phone:
        phone.post("/api/sessions", json={"package": "crew", "data": {"coffee": "huila"}}).raise_for_status()
    shopper.visit("/packages")
    shopper.sees("packages")
    shopper.chosen("Crew")


def test_two_tabs_change_packages(shopper: Shopper) -> None:
    shopper.visit()
    shopper.add()
    other = shopper.visit("/packages", shopper.context.new_page())
    shopper.choose("Crew")
    shopper.chosen("Crew")
    shopper.chosen("Crew", other)
    shopper.hears(MOVED, other)
    shopper.photo("other-tab", other)
    shopper.choose("Solo", other)
    shopper.chosen("Solo", other)
    shopper.chosen("Solo")
    shopper.go_to_checkout()
    shopper.fill()
    shopper.pay()
    shopper.sees("done")
    shopper.sees("done", other)
    assert shopper.sessions() == [
        ("duo", "invalidated", "created"),
        ("crew", "invalidated", "renewed"),
        ("solo", "completed", "renewed"),
    ]


def test_two_tabs_change_packages_at_once(shopper: Shopper) -> None:
    shopper.visit()
    shopper.add()
    other = shopper.visit("/packages", shopper.context.new_page())
    click = "document.querySelector('[data-choose={}]').click()"
    shopper.page.evaluate(click.format("crew"))
    other.evaluate(click.format("solo"))
    shopper.until(lambda: len(shopper.sessions()) == 3)
    (package,) = shopper.value("package")
    for tab in (shopper.page, other):
        shopper.chosen(package.title(), tab)
    assert [status for _, status, _ in shopper.sessions()] == ["invalidated", "invalidated", "active"]


def test_an_old_tab_finds_the_live_session(shopper: Shopper) -> None:
    shopper.visit()
    shopper.add()
    with shopper.context.expect_page() as opened:
        shopper.page.get_by_role("button", name="Open an old tab").click()
    old = opened.value
    shopper.sees("packages", old)
    shopper.hears(MOVED, old)
    shopper.choose("Crew", old)
    shopper.chosen("Crew", old)
    shopper.chosen("Crew")
    assert shopper.sessions() == [
        ("duo", "invalidated", "created"),
        ("duo", "invalidated", "renewed"),
        ("crew", "active", "renewed"),
    ]


def test_an_old_tab_of_a_paid_order(shopper: Shopper) -> None:
    shopper.visit()
    shopper.add()
    (old,) = shopper.value("id")
    shopper.choose("Crew")
    shopper.chosen("Crew")
    shopper.go_to_checkout()
    shopper.fill()
    shopper.pay()
    shopper.sees("done")
    tab = shopper.visit(f"/packages?session={old}", shopper.context.new_page())
    shopper.sees("done", tab)
    shopper.hears("Your order is already complete.", tab)
    assert shopper.tasks()[-1] == ("recover", "FAILURE", "already_completed")
