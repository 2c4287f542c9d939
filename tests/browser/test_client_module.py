"""The client as a module: small, typed, alone; its README tells the truth."""

import gzip
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import unavailable
from tests.browser.install import MODULES, WEB
from tests.browser.shopper import Shopper

CLIENT = WEB / "client" / "checkout-sessions.js"
TSC = MODULES / ".bin" / "tsc"


def run(*command: str | Path) -> None:
    """In `web/`; what it says is shown if it fails."""
    done = subprocess.run(command, cwd=WEB, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_it_is_small_and_alone() -> None:
    source = CLIENT.read_text()
    assert len(gzip.compress(source.encode(), 9)) < 10_000
    assert not re.search(r"^\s*(import\b|export .* from\b)", source, re.MULTILINE)


def test_the_published_shape() -> None:
    package = json.loads((WEB / "package.json").read_text())
    assert "dependencies" not in package
    for file in package["exports"]["."].values():
        assert (WEB / file).is_file()


@pytest.mark.usefixtures("modules")
def test_the_types_hold() -> None:
    run(TSC, "--project", "tsconfig.json")


@pytest.mark.usefixtures("modules")
def test_the_declarations_are_current(tmp_path: Path) -> None:
    run(TSC, "--project", "tsconfig.types.json", "--outDir", tmp_path)
    assert (tmp_path / "checkout-sessions.d.ts").read_text() == CLIENT.with_suffix(".d.ts").read_text()


def test_its_rules_in_node() -> None:
    node = shutil.which("node")
    if node is None:
        unavailable("Node is missing: python -m tests.browser.install")
    run(str(node), "--test", "test/client.test.js")


def test_the_example_in_plain_html(shopper: Shopper) -> None:
    (example,) = re.findall(r"```html\n(.*?)```", (WEB / "README.md").read_text(), re.DOTALL)
    assert len(example.splitlines()) <= 25
    bearer = "import { bearer } from '/shop/visitor.js'; window.shopToken = bearer;"
    page = f"<script type=module>{bearer}</script>{example}"
    shopper.page.route("**/example", lambda route: route.fulfill(content_type="text/html", body=page))
    shopper.page.goto(shopper.stack.url + "/example")
    package = shopper.page.locator("#package")
    shopper.page.get_by_role("button", name="Silver").click()
    expect(package).to_have_text("silver (active)")
    shopper.page.get_by_role("button", name="Gold").click()
    expect(package).to_have_text("gold (active)")
    shopper.page.get_by_role("button", name="Pay").click()
    expect(package).to_have_text("gold (completed)")
    assert shopper.sessions() == [("silver", "invalidated", "created"), ("gold", "completed", "renewed")]
