"""Pages in the system's Chromium through playwright: whatever a page asks for or complains about is kept."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

BINARY = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_browser = pytest.mark.skipif(BINARY is None, reason="needs Chromium: apt-get install chromium")
#: How often the main chart was drawn.
DRAWN = "Number(document.getElementById('chart').dataset.drawn || 0)"


@contextmanager
def chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BINARY, args=["--no-sandbox"])
        yield browser
        browser.close()


@contextmanager
def opened(browser: Browser, path: Path, width: int = 1280, height: int = 900, dark: bool = False) -> Iterator[Page]:
    """A page of its own on ``path``; on leaving, it asked for files beside itself only and nobody complained."""
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme="dark" if dark else "light")
    page = context.new_page()
    complaints: list[str] = []
    requests: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(path.resolve().as_uri())
    yield page
    context.close()
    assert complaints == []
    folder = path.resolve().parent.as_uri()
    assert [url for url in requests if not url.startswith((folder, "data:"))] == []
