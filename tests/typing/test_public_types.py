"""The public API's types, as a user's type checker sees them: mypy and pyright, both strict, on one script."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import calotype

ROOT = Path(__file__).parents[2]
SCRIPT = Path(__file__).with_name("user_script.py")


@pytest.mark.timeout(900)  # mypy reads torch's sources first; the next run, and `make check`, find them in .mypy_cache
@pytest.mark.parametrize(
    "checker",
    [["mypy", "--strict"], ["pyright", "--pythonpath", sys.executable]],
    ids=["mypy", "pyright"],
)
def test_a_users_script_is_clean(checker):
    environment = {**os.environ, "MYPYPATH": str(ROOT), "PYRIGHT_PYTHON_IGNORE_WARNINGS": "1"}
    found = subprocess.run(
        [sys.executable, "-m", *checker, str(SCRIPT)], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert found.returncode == 0, found.stdout + found.stderr


def test_the_script_uses_every_public_name():
    text = SCRIPT.read_text(encoding="utf-8")
    assert [name for name in calotype.__all__ if f"calotype.{name}" not in text] == []


def test_an_editable_install_is_a_path_that_type_checkers_can_follow(tmp_path):
    """By default setuptools installs an import hook for a layout such as this one; only a running Python follows it."""
    build = "import setuptools.build_meta as backend, sys; backend.build_editable(sys.argv[1])"
    egg = f"[egg_info]\negg_base={tmp_path}\n"  # not into the working tree
    (tmp_path / "options.cfg").write_text(egg, encoding="utf-8")
    subprocess.run(
        [sys.executable, "-c", build, str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "DIST_EXTRA_CONFIG": str(tmp_path / "options.cfg")},
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        added = {name: archive.read(name).decode() for name in archive.namelist() if ".dist-info/" not in name}
    assert list(added) == [f"__editable__.calotype-{calotype.__version__}.pth"]
    assert Path(added.popitem()[1].strip()) == ROOT
