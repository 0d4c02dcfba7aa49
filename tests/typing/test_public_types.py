"""The public API's types, as a user's type checker sees them: mypy and pyright, both strict, on one script."""

import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

import calotype

ROOT = Path(__file__).parents[2]
SCRIPT = Path(__file__).with_name("user_script.py")


@pytest.fixture(scope="module")
def editable(tmp_path_factory):
    """The wheel of an editable install, as `pip install --editable` builds it: what it adds to site-packages."""
    folder = tmp_path_factory.mktemp("editable")
    build = "import setuptools.build_meta as backend, sys; backend.build_editable(sys.argv[1])"
    egg = f"[egg_info]\negg_base={folder}\n"  # not into the working tree
    (folder / "options.cfg").write_text(egg, encoding="utf-8")
    subprocess.run(
        [sys.executable, "-c", build, str(folder)],
        cwd=ROOT,
        env={**os.environ, "DIST_EXTRA_CONFIG": str(folder / "options.cfg")},
        check=True,
        capture_output=True,
    )
    (wheel,) = folder.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def python(editable, tmp_path_factory):
    """The interpreter of an environment as `make setup` leaves it: calotype, editable, beside its dependencies."""
    environment = tmp_path_factory.mktemp("environment")
    venv.create(environment, with_pip=False, symlinks=True)
    (packages,) = environment.glob("lib/python*/site-packages")
    with zipfile.ZipFile(editable) as archive:
        archive.extractall(packages)
    dependencies = [folder for folder in sys.path if folder.endswith(("site-packages", "dist-packages"))]
    (packages / "dependencies.pth").write_text("\n".join(dependencies), encoding="utf-8")
    return environment / "bin" / "python"


@pytest.mark.timeout(900)  # mypy reads torch's sources first; the next run finds them in its cache
@pytest.mark.parametrize(
    "checker",
    [
        ["mypy", "--strict", "--cache-dir", str(ROOT / ".mypy_cache" / "user"), "--python-executable"],
        ["pyright", "--pythonpath"],
    ],
    ids=["mypy", "pyright"],
)
def test_a_users_script_is_clean_in_a_folder_of_its_own(checker, python, tmp_path):
    """The checkers find calotype in the environment, as for a script that lies anywhere."""
    script = tmp_path / "train.py"
    script.write_text(SCRIPT.read_text(encoding="utf-8"), encoding="utf-8")
    (tmp_path / "pyrightconfig.json").write_text('{"typeCheckingMode": "strict"}', encoding="utf-8")
    unset = {name: value for name, value in os.environ.items() if name not in ("MYPYPATH", "PYTHONPATH")}
    found = subprocess.run(
        [sys.executable, "-m", *checker, str(python), str(script)],
        cwd=tmp_path,
        env=unset | {"PYRIGHT_PYTHON_IGNORE_WARNINGS": "1"},
        capture_output=True,
        text=True,
    )
    assert found.returncode == 0, found.stdout + found.stderr


def test_the_script_uses_every_public_name():
    text = SCRIPT.read_text(encoding="utf-8")
    assert [name for name in calotype.__all__ if f"calotype.{name}" not in text] == []


def test_an_editable_install_is_a_path_that_type_checkers_can_follow(editable):
    """By default setuptools installs an import hook for a layout such as this one; only a running Python follows it."""
    with zipfile.ZipFile(editable) as archive:
        added = {name: archive.read(name).decode() for name in archive.namelist() if ".dist-info/" not in name}
    assert list(added) == [f"__editable__.calotype-{calotype.__version__}.pth"]
    assert Path(added.popitem()[1].strip()) == ROOT
