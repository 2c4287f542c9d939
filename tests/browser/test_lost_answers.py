"""What happens between a click and its answer."""

import pytest
from playwright.sync_api import Route, expect

from tests.browser.conftest import Shop
from tests.browser.shopper import Shopper

OFFLINE = "You are offline. Nothing is lost, we go on as soon as you are back."
UNREACHABLE = "We cannot reach the shop right now. Nothing is lost, we keep trying."
SLOW = "This takes longer than usual. Nothing is lost, we go on by ourselves."
COMPLETED_ONCE = [("create", "SUCCESS", None), ("complete", "SUCCESS", None)]


def test_pay_is_clicked_twice(shopper: Shopper) -> None:
    shopper.at_checkout()
    shopper.page.locator("#pay").dblclick()
    shopper.sees("done")
    assert shopper.tasks() == COMPLETED_ONCE
    assert shopper.sessions() == [("duo", "completed", "created")]


def test_two_payments_at_once_with_one_reference(shopper: Shopper) -> None:
    shopper.visit()
    shopper.add()
    shopper.page.get_by_role("button", name="Pay twice at once").click()
    expect(shopper.page.locator("#said")).to_contain_text("one order")
    shopper.sees("done")
    shopper.hears_nothing()
    assert shopper.tasks() == [*COMPLETED_ONCE, COMPLETED_ONCE[1]]
    assert shopper.sessions() == [("duo", "completed", "created")]


def test_the_network_is_cut_and_comes_back(shopper: Shopper) -> None:
    shopper.visit()
    shopper.add()
    shopper.context.set_offline(True)
    shopper.choose("Crew")
    shopper.hears(OFFLINE)
    shopper.photo("offline")
    shopper.chosen("Duo")
    shopper.page.get_by_role("button", name="Continue to checkout").click()
    assert [kind for kind, _, _ in shopper.tasks()] == ["create"]
    shopper.context.set_offline(False)
    shopper.sees("checkout")
    expect(shopper.page.locator("#pay")).to_have_text("Pay €42.00 now")
    shopper.until(lambda: shopper.value("step") == ("checkout",))
    shopper.hears_nothing()
    assert shopper.sessions() == [("duo", "invalidated", "created"), ("crew", "active", "renewed")]


def test_the_button_that_loses_the_connection(shopper: Shopper) -> None:
    shopper.visit()
    shopper.add()
    shopper.page.get_by_role("button", name="Lose the connection").click()
    shopper.choose("Crew")
    shopper.hears(UNREACHABLE)
    shopper.page.get_by_role("button", name="Bring it back").click()
    shopper.chosen("Crew")
    shopper.hears_nothing()


@pytest.mark.parametrize("sent", [True, False], ids=["after the API has it", "before"])
def test_an_answer_is_lost(shopper: Shopper, sent: bool) -> None:
    keys: list[str] = []

    def lose(route: Route) -> None:
        keys.append(route.request.headers["idempotency-key"])
        if len(keys) == 1:
            if sent:
                route.fetch()
            route.abort("connectionreset")
        else:
            route.continue_()

    shopper.at_checkout()
    shopper.page.route("**/complete", lose)
    shopper.pay()
    shopper.sees("done")
    assert len(keys) == 2
    assert keys[0] == keys[1]
    assert shopper.tasks() == COMPLETED_ONCE


def test_reload_during_pay(shopper: Shopper, shop: Shop) -> None:
    shopper.at_checkout()
    shop.stop_worker()
    shopper.pay()
    shopper.until(lambda: shopper.tasks()[-1] == ("complete", "PENDING", None))
    shopper.page.reload()
    shopper.page.locator("#page-wait").wait_for()
    shop.start_worker()
    shopper.sees("done")
    assert shopper.tasks() == COMPLETED_ONCE
    assert shopper.page.evaluate("localStorage['checkout.wishes']") is None


def test_the_api_restarts_during_pay(shopper: Shopper, shop: Shop) -> None:
    shopper.at_checkout()
    shop.stop_worker()
    shopper.pay()
    shopper.until(lambda: shopper.tasks()[-1] == ("complete", "PENDING", None))
    shop.api.kill()
    shopper.hears(UNREACHABLE)
    shopper.photo("api-away")
    shop.start_worker()
    shop.restart_api()
    shopper.sees("done")
    shopper.hears_nothing()
    assert shopper.tasks() == COMPLETED_ONCE
    assert shopper.sessions() == [("duo", "completed", "created")]


def test_the_worker_is_away_for_longer_than_the_api_holds_a_request(shopper: Shopper, shop: Shop) -> None:
    """Ten seconds: the API answers 202, and the client polls on."""
    shopper.visit()
    shopper.add()
    shop.stop_worker()
    with shopper.page.expect_request("**/api/tasks/*"):
        shopper.choose("Crew")
        shopper.hears(SLOW)
        shopper.photo("worker-away")
        shopper.chosen("Duo")
    shop.start_worker()
    shopper.chosen("Crew")
    shopper.hears_nothing()
    assert shopper.sessions() == [("duo", "invalidated", "created"), ("crew", "active", "renewed")]


def test_the_button_that_restarts_the_worker(shopper: Shopper, shop: Shop) -> None:
    shopper.visit()
    shopper.add()
    shopper.page.get_by_role("button", name="Restart the worker").click()
    expect(shopper.page.locator("#said")).to_contain_text("The worker restarts")
    shopper.until(lambda: not shop.worker.running)
    shopper.choose("Solo")
    shop.start_worker()
    shopper.chosen("Solo")
    assert shopper.tasks()[-1] == ("renew", "SUCCESS", None)


def test_the_token_expires(shopper: Shopper) -> None:
    shopper.visit()
    shopper.add()
    shopper.page.get_by_role("button", name="Let the token expire").click()
    expect(shopper.page.locator("#said")).to_contain_text("The token has expired")
    with shopper.page.expect_response(lambda response: response.status == 401):
        shopper.choose("Crew")
    shopper.chosen("Crew")
    shopper.hears_nothing()
    assert shopper.sessions() == [("duo", "invalidated", "created"), ("crew", "active", "renewed")]


@pytest.mark.parametrize("saved", [True, False])
def test_no_token_until_the_shopper_signs_in(shopper: Shopper, saved: bool) -> None:
    """A sign-in that is over asks for one sentence and one button; the payment is kept and goes on."""
    shopper.at_checkout()
    if saved:
        shopper.page.locator("input[name=town]").blur()
        shopper.until(lambda: "Bath" in str(shopper.value("data")))
    shopper.page.route("**/demo/token", lambda route: route.fulfill(json={"token": "signed.out.token"}))
    shopper.page.get_by_role("button", name="Let the token expire").click()
    expect(shopper.page.locator("#said")).to_contain_text("The token has expired")
    shopper.pay()
    button = shopper.hears("Please sign in again to go on.").get_by_role("button", name="Sign in again")
    shopper.photo("sign-in")
    shopper.page.unroute("**/demo/token")
    button.click()
    shopper.sees("done")
    assert shopper.tasks() == COMPLETED_ONCE


def test_a_task_is_given_up(shopper: Shopper) -> None:
    """A fault of ours: one sentence, one button, and the next try is a new one."""
    problem = {"code": "gave_up", "message": "Something went wrong on our side. Please try again.", "next": "retry"}
    shopper.at_checkout()
    shopper.page.route("**/complete", lambda route: route.fulfill(status=503, json={**problem, "status": 503}), times=1)
    shopper.pay()
    button = shopper.hears(problem["message"]).get_by_role("button", name="Try again")
    shopper.photo("gave-up")
    button.click()
    shopper.sees("done")
    assert shopper.tasks() == COMPLETED_ONCE


def test_the_api_is_too_busy(shopper: Shopper) -> None:
    shopper.visit()
    shopper.add()
    busy = {"code": "backlog_full", "message": "We are very busy right now.", "next": "retry", "status": 503}
    shopper.page.route(
        "**/renew", lambda route: route.fulfill(status=503, json=busy, headers={"Retry-After": "3"}), times=1
    )
    shopper.choose("Crew")
    shopper.hears(SLOW)
    shopper.chosen("Crew")
    shopper.hears_nothing()
