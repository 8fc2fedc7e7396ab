"""The system's Chromium, for tests of pages."""

import shutil
from collections.abc import Iterator
from typing import Any

import pytest


def chromium() -> Iterator[Any]:
    """For a fixture: a headless Chromium of Playwright's; where there is none, its tests are skipped."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright (the extra browser)")
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if path is None:
        pytest.skip("needs Chromium (Debian: apt-get install chromium)")
    # software rendering draws WebGL where there is no GPU
    flags = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=path, args=flags)
        yield opened
        opened.close()
