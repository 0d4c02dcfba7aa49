"""The wheel alone: it is whole, and every command works or says which extra it needs. `each_extra.py` has the rest."""

import json
import re
import shlex
import tarfile
import zipfile

import pytest
from wheel_environment import ROOT

EXTRAS = ("hub", "lmdb", "heif", "diffusers", "train", "ray", "caption", "distill", "studio", "demo")


def test_sdist_and_wheel_hold_every_file_of_the_package(distributions):
    sdist, wheel = distributions
    own = {
        str(file.relative_to(ROOT))
        for file in (ROOT / "calotype").rglob("*")
        if file.is_file() and file.parent.name != "__pycache__"
    }
    assert {"calotype/py.typed", "calotype/studio/page/index.html", "calotype/captioning/presets/tags.yaml"} < own
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        assert own <= names
        about = archive.read("calotype-0.1.0.dist-info/METADATA").decode()
        assert "calotype-0.1.0.dist-info/licenses/LICENSE" in names
        assert {name.partition("/")[0] for name in names} == {"calotype", "calotype-0.1.0.dist-info"}
    assert set(re.findall(r"^Provides-Extra: (.+)$", about, re.MULTILINE)) == {*EXTRAS, "bench", "dev"}
    with tarfile.open(sdist) as archive:
        assert own | {"pyproject.toml", "README.md", "LICENSE"} <= {
            name.partition("/")[2] for name in archive.getnames()
        }


def test_the_script_answers(installed):
    process = installed.start("calotype", "--help", folder=installed.folder)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0 and "train" in out and err == ""


def test_with_no_extra_everything_about_a_dataset_works(installed, home):
    command = ("init", "photos", "--model", "flux.1-dev", "--trigger", "zzz", "-o", "new.yaml")
    installed.calotype(*command, folder=home)
    here = ("resolution=64", "loader.in_process=true")
    assert "clean" in installed.calotype("check", "photos", *here, folder=home)
    installed.calotype("preview", "photos", *here, "-o", "page.html", folder=home)
    installed.calotype("convert", "photos", "shards", "--to", "webdataset", folder=home)
    assert (home / "page.html").stat().st_size > 10_000 and (home / "new.yaml").exists()
    json.loads(installed.calotype("info", "shards", *here, "--json", folder=home).splitlines()[-1])


@pytest.mark.parametrize(
    ("command", "extra"),
    [
        ("train photos.yaml", "train"),
        ("encode photos.yaml", "diffusers"),
        ("encode photos.yaml --engine ray", "ray"),
        ("bench photos.yaml", "train"),
        ("caption photos --model captioner", "caption"),
        ("distill distill.yaml", "distill"),
        ("studio photos --no-open", "studio"),
        ("demo", "demo"),
        ("convert photos lmdb --to lmdb", "lmdb"),
        ("info heic resolution=64", "heif"),
        ("info saved", "hub"),
        ("info owner/name", "hub"),
    ],
)
def test_without_its_extra_a_command_says_how_to_install_it(installed, home, command, extra):
    said = installed.calotype(*command.split(), folder=home, status=1)
    assert re.findall(r" -m pip install 'calotype\[(\w+)\]'", said) == [extra], said


@pytest.mark.parametrize(
    ("command", "extra"),
    [
        ("convert photos lmdb --to lmdb", "lmdb"),
        ("check heic resolution=64 loader.in_process=true", "heif"),
        ("check saved resolution=64 loader.in_process=true", "hub"),
    ],
)
def test_with_its_extra_alone_a_command_works(installed, home, command, extra):
    installed.calotype(*command.split(), extras=(extra,), folder=home)


def test_the_advice_works_where_no_index_has_calotype(installed, home):
    """The command that is advised, but for what the extra brings, which would be downloaded."""
    said = installed.calotype("demo", folder=home, status=1)
    command = shlex.split(re.search(r"\S+ -m pip install '.*?'", said)[0])
    process = installed.start(*command, "--no-deps", "--no-index", folder=home)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0 and "already satisfied: calotype[demo]" in out, err
