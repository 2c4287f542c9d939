"""What operators look at: /ops, and Flower, from a shopper's task to Celery's and back."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from local.processes import PROCESSES
from tests.browser.conftest import PATIENCE, Shop
from tests.browser.shopper import ARTIFACTS
from tests.browser.test_accessibility import LOOKS, faults
from tests.stack import Process, eventually, headers, token


@contextmanager
def a_page(browser: Browser, **options: Any) -> Iterator[Page]:
    """A page in a new profile; errors in it fail the test."""
    context = browser.new_context(**{"viewport": {"width": 1380, "height": 900}} | options)
    context.set_default_timeout(PATIENCE)
    page = context.new_page()
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda said: wrong.append(said.text) if "Content Security" in said.text else None)
    yield page
    context.close()
    assert wrong == []


def photo(page: Page, name: str) -> None:
    """Of the whole page, to be looked at."""
    page.screenshot(path=ARTIFACTS / f"{name}.png", full_page=True)


def a_life(shop: Shop, user: str) -> dict[str, Any]:
    """A session is created, completed, and completed again with another payment, which is refused. The first task."""
    with httpx.Client(base_url=shop.stack.url, headers=headers(user, Prefer="wait=20"), timeout=30) as client:
        made = client.post("/api/sessions", json={"package": "Solo"}).json()
        for payment in ("one", "two"):
            path = f"/api/sessions/{made['session_id']}/complete"
            client.post(path, json={"payment_reference": f"{user}-{payment}"})
    return dict(made)


def sign_in(page: Page, shop: Shop, role: str = "service_role") -> None:
    """Open /ops, and give it a token."""
    page.goto(f"{shop.stack.url}/ops")
    page.get_by_label("Service token").fill(token("operator", role))
    page.get_by_role("button", name="Show").click()


@pytest.mark.usefixtures("modules")
@pytest.mark.parametrize("options", LOOKS)
def test_the_page_shows_how_it_is(shop: Shop, browser: Browser, options: dict[str, Any]) -> None:
    a_life(shop, f"ops-{sorted(options)}-{options['color_scheme']}")
    with a_page(browser, **options) as page:
        sign_in(page, shop)
        expect(page.locator("#verdict")).to_have_text("All is well.")
        expect(page.locator("#processes")).to_contain_text("sessions-")
        expect(page.locator("#days")).to_contain_text(" of ")
        expect(page.locator("#hour svg path.line").first).to_be_attached()
        assert "token" not in page.url
        overflow = "document.documentElement.scrollWidth > document.documentElement.clientWidth"
        assert not page.evaluate(overflow)
        assert faults(page) == []
        photo(page, f"ops-{options['color_scheme']}-{options.get('viewport', {}).get('width', 'wide')}")


def test_the_page_is_for_operators(shop: Shop, browser: Browser) -> None:
    with a_page(browser) as page:
        sign_in(page, shop, "authenticated")
        expect(page.locator("#refused")).not_to_be_empty()
        expect(page.locator("#board")).to_be_hidden()
        assert page.evaluate("sessionStorage.length") == 0


def test_the_page_says_what_is_wrong(shop: Shop, browser: Browser) -> None:
    with a_page(browser) as page:
        sign_in(page, shop)
        expect(page.locator("#verdict")).to_have_text("All is well.")
        shop.stop_worker()
        expect(page.locator("#troubles")).to_contain_text("No worker serves the queue sessions.")
        photo(page, "ops-troubles")
        shop.start_worker()
        expect(page.locator("#verdict")).to_have_text("All is well.")


@pytest.fixture
def flower(shop: Shop) -> Iterator[list[Process]]:
    """As `make up` runs it; the last one runs."""
    running = [start_flower(shop)]
    yield running
    running[-1].kill()


def start_flower(shop: Shop) -> Process:
    """One that answers."""
    (process,) = (process for process in PROCESSES if process.name == "flower")
    stack = shop.stack
    argv = process.command(sys.executable, stack.folder, "127.0.0.1", stack.flower_port)
    environment = stack.env | {"FLOWER_PORT": str(stack.flower_port), "FLOWER_UNAUTHENTICATED_API": "1"}
    started = Process("flower", argv, environment, stack.folder / "flower.log")
    stack.processes.append(started)
    eventually(lambda: httpx.get(f"http://127.0.0.1:{stack.flower_port}/healthcheck").status_code == 200)
    return started


def heard(shop: Shop, url: str) -> bool:
    """Whether Flower hears of a task that is executed now."""
    with shop.stack.client("unheard", Prefer="wait=20") as client:
        client.post("/api/sessions", json={"package": "duo"}).raise_for_status()
    return bool(httpx.get(f"{url}/api/tasks").json())


def test_from_a_shoppers_task_to_flowers_and_back(shop: Shop, browser: Browser, flower: list[Process]) -> None:
    url = f"http://127.0.0.1:{shop.stack.flower_port}"
    eventually(lambda: len(httpx.get(f"{url}/api/workers").json()) >= 2, "it knows the workers")
    eventually(lambda: heard(shop, url), "it hears their events")
    task_id = a_life(shop, "flower")["id"]
    asked = httpx.get(f"{shop.stack.url}/api/tasks/{task_id}", headers=headers("operator", "service_role")).json()
    assert asked["worker"]
    celery_id = asked["celery_task_id"]
    eventually(lambda: "SUCCESS" in httpx.get(f"{url}/api/task/info/{celery_id}").text, "it heard of it")
    hidden = httpx.get(f"{shop.stack.url}/api/tasks/{task_id}", headers=headers("flower")).json()
    assert "celery_task_id" not in hidden
    with a_page(browser) as page:
        page.goto(f"{url}/task/{celery_id}")
        expect(page.locator("#task-page")).to_contain_text("sessions.create")
        expect(page.locator("#task-page")).to_contain_text(task_id)
        expect(page.locator("#task-page")).to_contain_text("SUCCESS")
        photo(page, "flower-task")
        for path in ("workers", "tasks", "broker"):
            page.goto(f"{url}/{path}")
            page.wait_for_load_state("networkidle")
            photo(page, f"flower-{path}")
        page.goto(f"{url}/tasks")
        expect(page.locator("#tasks-table")).to_contain_text("sessions.complete")
        expect(page.locator("#tasks-table")).not_to_contain_text("FAILURE")  # the refused payment is no fault
        page.get_by_placeholder("state:FAILURE").fill(task_id)
        expect(page.locator("#tasks-table")).not_to_contain_text("sessions.complete")
        expect(page.locator("#tasks-table")).to_contain_text(celery_id)

    flower[-1].stop()
    flower.append(start_flower(shop))
    kept = httpx.get(f"{url}/api/task/info/{celery_id}").json()
    assert (kept["name"], kept["state"]) == ("sessions.create", "SUCCESS")
    assert task_id in kept["args"]
