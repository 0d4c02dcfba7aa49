"""Make the screenshots in README.md: `.venv/bin/python tools/screenshots.py`.

The photos of the demo, in `calotype preview` and in `calotype studio`, as commands run them and Chromium shows them.
Writes docs/images/preview.webp and docs/images/studio.webp.
"""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

import real_tokenizers  # noqa: E402
from chromium import chromium  # noqa: E402

from calotype.demo import write_demo  # noqa: E402

WIDTH = 1280
CALOTYPE = [sys.executable, "-c", "from calotype.cli import main; main()"]


def save(page: Any, name: str) -> None:
    """Save what the page shows, and print its size."""
    file = ROOT / "docs" / "images" / f"{name}.webp"
    Image.open(io.BytesIO(page.screenshot())).save(file, quality=80, method=6)
    print(f"{file.relative_to(ROOT)}: {file.stat().st_size / 1e3:.0f} kB")


def main() -> None:
    """Make both."""
    with tempfile.TemporaryDirectory() as scratch, chromium() as browser:
        folder = Path(scratch)
        config = write_demo(folder)
        tokenizers = real_tokenizers.flux_pipeline()
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "CALOTYPE_CACHE": str(folder / "cache")}
        arguments = [str(config), "--tokenizers", str(tokenizers)]

        subprocess.run(
            [*CALOTYPE, "preview", *arguments, "-o", str(folder / "preview.html")], env=environment, check=True
        )
        page = browser.new_page(viewport={"width": WIDTH, "height": 1200})
        page.goto((folder / "preview.html").as_uri())
        page.wait_for_load_state("networkidle")
        save(page, "preview")
        page.close()

        studio = subprocess.Popen(
            [*CALOTYPE, "studio", *arguments, "--no-open"], env=environment, stdout=subprocess.PIPE, text=True
        )
        try:
            assert studio.stdout is not None
            address = next(found[0] for line in studio.stdout if (found := re.search(r"http://\S+", line)))
            page = browser.new_page(viewport={"width": WIDTH, "height": 800})
            page.goto(address)
            page.wait_for_load_state("networkidle")
            page.wait_for_function("[...document.images].every(image => image.complete)")
            save(page, "studio")
        finally:
            studio.terminate()
            studio.wait()


if __name__ == "__main__":
    main()
