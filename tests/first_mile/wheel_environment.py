"""The wheel alone in a fresh environment, beside exactly the packages that one extra of it installs.

Nothing is downloaded: an extra's packages are symlinks to those of the environment that runs the tests, for each
distribution in the closure of the wheel's own requirements.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import venv
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from command_server import Server
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
BASE = [f"calotype.{name}" for name in ("cli", "check", "convert", "previews", "loader.build", "data.builder")]
"""Modules that need no extra, and that most commands import."""

BUILD = "import sys; from setuptools import build_meta; print(getattr(build_meta, sys.argv[1])(sys.argv[2]))"


def build(folder: Path) -> tuple[Path, Path]:
    """The sdist of the working tree, and the wheel made of it alone: what `python -m build` does, without a network."""
    tree = folder / "tree"
    shutil.copytree(ROOT / "calotype", tree / "calotype", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)

    def made(kind: str, where: Path) -> Path:
        command = [sys.executable, "-c", BUILD, kind, str(folder)]
        done = subprocess.run(command, cwd=where, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        return folder / done.stdout.splitlines()[-1]

    sdist = made("build_sdist", tree)
    with tarfile.open(sdist) as archive:
        archive.extractall(folder / "unpacked", filter="data")
    (unpacked,) = (folder / "unpacked").iterdir()
    return sdist, made("build_wheel", unpacked)


def closure(requirements: list[str], extra: str = "") -> set[str]:
    """The distributions that these requirements bring, what they require in turn included, by canonical name."""
    found: set[tuple[str, str]] = set()
    wanted = [(Requirement(one), extra) for one in requirements]
    while wanted:
        requirement, asked = wanted.pop()
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": asked}):
            continue
        name = canonicalize_name(requirement.name)
        for of in ("", *requirement.extras):
            if (name, of) in found:
                continue
            found.add((name, of))
            own = requirements if name == "calotype" else metadata.requires(name) or []
            wanted += [(Requirement(one), of) for one in own]
    return {name for name, _ in found} - {"calotype"}


@dataclass(slots=True)
class Installed:
    """An environment that holds calotype's wheel, and nothing else of its own."""

    python: Path
    base: Path
    """The links to the packages of the wheel's requirements."""
    folder: Path
    server: Server

    @classmethod
    def make(cls, wheel: Path, folder: Path) -> Installed:
        venv.create(folder / "venv", symlinks=True, with_pip=False)
        python = folder / "venv" / "bin" / "python"
        subprocess.run(
            [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-index", wheel],
            env=_environment(),
            check=True,
            capture_output=True,
            timeout=120,
        )
        base = folder / "packages"
        _link(base, closure(_requirements(python)) | {"pip"})
        environment = _environment(base)
        return cls(python=python, base=base, folder=folder, server=Server(python, *BASE, environment=environment))

    def packages(self, *extras: str) -> list[str]:
        """The folders that these extras add to sys.path."""
        folders = []
        for extra in extras:
            folder = self.folder / f"packages-{extra}"
            if not folder.exists():
                requirements = _requirements(self.python)
                _link(folder, closure(requirements, extra) - closure(requirements))
            folders.append(str(folder))
        return folders

    def calotype(self, *arguments: object, extras: tuple[str, ...] = (), folder: Path, status: int = 0) -> str:
        """What `calotype ARGUMENTS` prints with these extras installed, on both streams."""
        packages = self.packages(*extras)
        reply = self.server.calotype(*arguments, folder=folder, packages=packages)
        assert reply.status == status and "Traceback" not in reply.text, f"{arguments}: {reply.status}\n{reply.text}"
        return reply.text

    def start(self, *command: object, extras: tuple[str, ...] = (), folder: Path) -> subprocess.Popen[str]:
        """A command of this environment in a process of its own."""
        return subprocess.Popen(
            [str(self.python.parent / str(command[0])), *map(str, command[1:])],
            env=_environment(self.base, *self.packages(*extras)),
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )


def _environment(*packages: str | Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "PYTHON", "VIRTUAL_ENV"))}
    return kept | {"PYTHONPATH": os.pathsep.join(map(str, packages)), "HF_HUB_OFFLINE": "1"}


def _requirements(python: Path) -> list[str]:
    (site,) = (python.parents[1] / "lib").glob("python*/site-packages")
    (installed,) = metadata.distributions(name="calotype", path=[str(site)])
    return installed.requires or []


def _link(folder: Path, names: set[str]) -> None:
    """Links to the top-level files and folders of these distributions."""
    folder.mkdir()
    for name in names:
        distribution = metadata.distribution(name)
        tops = {file.parts[0] for file in distribution.files or ()} - {"..", "__pycache__"}
        for top in tops:
            if not (folder / top).exists():
                (folder / top).symlink_to(Path(str(distribution.locate_file(top))).resolve())
