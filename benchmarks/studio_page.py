"""How smooth is the page of `calotype studio` in a browser with 20,000 images?

python benchmarks/studio_page.py [--images N]

The server is the real one, in a separate process, over a folder of tiny images with captions in `.txt` files; the
page is opened in Chromium without a window, by Playwright. It prints the milliseconds between frames while the grid
scrolls through the whole list, and how long a keystroke in the filter, the selection of all images and a tag for all
of them take until the page shows the result.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright
from studio import COMMAND, HERE, make

SCROLL = """async (seconds) => {
    const grid = document.getElementById("grid");
    const frames = [];
    const start = performance.now();
    let last = start;
    while (last - start < seconds * 1000) {
        grid.scrollTop = (grid.scrollHeight - grid.clientHeight) * ((last - start) / (seconds * 1000));
        const now = await new Promise(requestAnimationFrame);
        frames.push(now - last);
        last = now;
    }
    return frames.slice(1).sort((a, b) => a - b);
}"""
"""Scrolls from the first image to the last, and returns the milliseconds between frames."""

SELECT_ALL = """async () => {
    const start = performance.now();
    document.getElementById("grid").dispatchEvent(
        new KeyboardEvent("keydown", { key: "a", ctrlKey: true, bubbles: true }));
    await new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
    return performance.now() - start;
}"""


def until(page: Any, script: str) -> float:
    """Milliseconds until a condition holds in the page."""
    start = time.perf_counter()
    page.wait_for_function(script, timeout=600_000)
    return (time.perf_counter() - start) * 1000


def measure(page: Any, images: int) -> dict[str, str]:
    """What each thing took, in words."""
    found = {}
    shown = f"document.getElementById('count').value.startsWith('{images:,} images')"
    for name in ("scrolling, cold", "scrolling, warm"):
        frames = page.evaluate(SCROLL, 4)
        at = [frames[int(len(frames) * share)] for share in (0.5, 0.95)]
        found[name] = f"frames of {at[0]:.0f} ms, 95 % below {at[1]:.0f} ms, the longest {frames[-1]:.0f} ms"
    page.locator("#filter").press_sequentially("number 7")
    found["the last keystroke in the filter"] = f"{until(page, f'!{shown}'):.0f} ms"
    page.keyboard.press("Escape")
    until(page, shown)
    found["selecting all"] = f"{page.evaluate(SELECT_ALL):.0f} ms"
    page.locator("#grid").focus()
    page.keyboard.press("t")
    dialog = page.get_by_role("dialog", name="Tags and words")
    dialog.get_by_label("Text").fill("photo")
    start = time.perf_counter()
    dialog.get_by_role("button", name="Change").click()
    page.wait_for_function('document.getElementById("toasts").textContent.includes("Add the tag")', timeout=600_000)
    found["a tag for all"] = f"{time.perf_counter() - start:.1f} s"
    found["selecting all after it"] = f"{page.evaluate(SELECT_ALL):.0f} ms"
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--cache", type=Path, default=HERE.parent / ".cache/benchmarks", help="where the set is kept")
    arguments = parser.parse_args()
    arguments.cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=arguments.cache) as scratch, sync_playwright() as playwright:
        folder = Path(scratch, "images")
        make(folder, arguments.images, "txt")
        environment = os.environ | {"CALOTYPE_CACHE": str(Path(scratch, "cache"))}
        command = [str(COMMAND), "studio", str(folder), "--no-open"]
        server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        try:
            assert server.stdout is not None
            address = next(found[0] for line in server.stdout if (found := re.search(r"http://[^/]+/\?code=\S+", line)))
            installed = next((path for path in ("/usr/bin/chromium",) if Path(path).exists()), None)
            browser = playwright.chromium.launch(executable_path=installed, args=["--no-sandbox", "--disable-gpu"])
            page = browser.new_page(viewport={"width": 1280, "height": 800}, bypass_csp=True)
            page.set_default_timeout(600_000)
            page.goto(address)
            first = until(page, "document.querySelectorAll('.cell .name:not(:empty)').length > 0")
            times = {"the first images in the page": f"{first:.0f} ms"} | measure(page, arguments.images)
            browser.close()
        finally:
            server.terminate()
            server.wait()
    print(f"{arguments.images:,} images; load of the machine {os.getloadavg()[0]:.1f}")
    for name, value in times.items():
        print(f"  {name:30} {value}")


if __name__ == "__main__":
    main()
