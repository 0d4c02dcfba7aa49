"""Installs the wheel with pip, from the package index, and runs it: `make test-install`, or

    python tests/first_mile/real_install.py WHEEL [EXTRA …]

For the wheel alone and with each extra named: a fresh virtual environment, `pip install`, `calotype init`, `info` and
`preview` on photos of its own. Prints seconds and disk of each, and removes it.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path

from PIL import Image

COMMANDS = (
    "--help",
    "init photos --model flux.1-dev --trigger zzz",
    "info photos resolution=64",
    "check photos resolution=64",
    "preview photos resolution=64 -o preview.html",
)


def install(wheel: Path, extra: str, folder: Path) -> None:
    venv.create(folder / "venv", with_pip=True)
    scripts = folder / "venv" / "bin"
    photos = folder / "photos"
    photos.mkdir()
    for number in range(4):
        size = (256, 192 + 64 * (number % 2))
        Image.effect_mandelbrot(size, (-2, -1, 1, 1), 20 + number).save(photos / f"{number}.png")
        (photos / f"{number}.txt").write_text(f"a fractal, number {number}")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}

    def run(*command: str | Path) -> None:
        subprocess.run(command, cwd=folder, env=environment, check=True, stdout=subprocess.DEVNULL)

    started = time.monotonic()
    run(scripts / "pip", "install", "--quiet", f"{wheel}[{extra}]" if extra else wheel)
    seconds = time.monotonic() - started
    for command in COMMANDS:
        run(scripts / "calotype", *command.split())
    size = sum(file.lstat().st_size for file in folder.joinpath("venv").rglob("*"))
    print(f"{wheel.name}[{extra}]: installed in {seconds:.0f} s, {size / 1e9:.1f} GB; {len(COMMANDS)} commands ran")


def main() -> None:
    wheel = Path(sys.argv[1]).resolve()
    for extra in ("", *sys.argv[2:]):
        folder = Path(tempfile.mkdtemp(prefix="calotype-install-"))
        try:
            install(wheel, extra, folder)
        finally:
            shutil.rmtree(folder)


if __name__ == "__main__":
    main()
