"""What is advised to install an extra works, in the environment of the process that advises it."""

import sys
from importlib import metadata

from wheel_environment import ROOT

from calotype import errors
from calotype.errors import install_command


def test_one_function_makes_the_advice():
    modules = (ROOT / "calotype").rglob("*.py")
    assert [file.name for file in modules if "pip install" in file.read_text(encoding="utf-8")] == []
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        assert "install 'calotype[" not in page.read_text(encoding="utf-8"), f"{page.name}: no index has calotype"


def test_the_interpreter_is_named_as_short_as_it_works(tmp_path, monkeypatch):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.setenv("PATH", str(elsewhere))
    monkeypatch.chdir(elsewhere)
    assert install_command("lmdb") == f"{sys.executable} -m pip install 'calotype[lmdb]'"
    python = tmp_path / "my env" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.symlink_to(sys.executable)
    monkeypatch.setattr(sys, "executable", str(python))
    assert install_command("lmdb").startswith(f"'{python}' -m pip ")
    monkeypatch.chdir(tmp_path)
    assert install_command("lmdb").startswith("'my env/bin/python' -m pip ")
    monkeypatch.setenv("PATH", str(python.parent), prepend=":")
    assert install_command("lmdb") == "python -m pip install 'calotype[lmdb]'"


def test_an_environment_without_pip_is_one_of_uv(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(errors, "find_spec", lambda name: None)
    assert install_command("lmdb") == f"uv pip install --python {sys.executable} 'calotype[lmdb]'"


def test_a_clone_that_is_not_installed_is_installed_with_the_extra(monkeypatch):
    def missing(name):
        raise metadata.PackageNotFoundError(name)

    assert install_command("newer").endswith(f" -m pip install --editable '{ROOT}[newer]'")
    monkeypatch.setattr(metadata, "metadata", missing)
    assert install_command("lmdb").endswith(f" -m pip install --editable '{ROOT}[lmdb]'")
