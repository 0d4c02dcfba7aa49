"""A real Chromium for tests: the one on the PATH, or playwright's own."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

DESK, PHONE = (1440, 900), (390, 844)

_ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]


@contextmanager
def chromium() -> Iterator[Any]:
    """A browser until the end of the block; the test is skipped where there is none."""
    playwright_api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    playwright_api.expect.set_options(timeout=30_000)  # a page on a busy machine takes its time
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    with playwright_api.sync_playwright() as playwright:
        try:
            browser = playwright.chromium.launch(executable_path=found, args=_ARGUMENTS)
        except playwright_api.Error as error:
            if found is None:
                pytest.skip("needs Chromium: none on the PATH, and playwright has none of its own")
            raise AssertionError(f"{found} does not start") from error
        yield browser
        browser.close()


def luminance(rgb: Any) -> float:
    """https://www.w3.org/TR/WCAG22/#dfn-relative-luminance"""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (v / 255 for v in rgb)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(a: Any, b: Any) -> float:
    """Of two sRGB colours, 1 to 21: https://www.w3.org/TR/WCAG22/#dfn-contrast-ratio"""
    darker, lighter = sorted((luminance(a), luminance(b)))
    return (lighter + 0.05) / (darker + 0.05)
