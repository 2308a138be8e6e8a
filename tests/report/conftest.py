"""A headless browser that opens a page and fails the test if the page does not keep to itself."""

import shutil
from pathlib import Path

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="session")
def browser():
    if CHROMIUM is None:
        pytest.skip("no Chromium in the system: the page is not driven")
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with api.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def open_page(browser):
    """Opens a file; the test fails if the page logs, throws, shows a dialog or requests anything."""
    found, contexts = [], []

    def opened(path: Path, width: int = 1400, **options):
        contexts.append(browser.new_context(viewport={"width": width, "height": 900}, **options))
        page = contexts[-1].new_page()
        page.set_default_timeout(120_000)  # of a machine under load
        page.on("console", lambda message: found.append(f"console: {message.text}"))
        page.on("pageerror", lambda error: found.append(f"error: {error}"))
        page.on("dialog", lambda dialog: (found.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        page.on("request", lambda request: found.append(f"request: {request.url[:90]}"))
        page.goto(path.as_uri())
        return page

    yield opened
    for context in contexts:
        context.close()
    wanted = [line for line in found if not line.startswith(("request: file:", "request: data:"))]
    assert not wanted
    assert sum(line.startswith("request: file:") for line in found) == len(contexts)  # the page itself
