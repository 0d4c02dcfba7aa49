"""What is written never lies among the data; a run's folder is called after its config."""

import os
import sys

import pytest
import yaml
from train_helpers import config, make_folder

from calotype import train
from calotype.bench.run import _scratch
from calotype.cli import main
from calotype.config import Config, build_dataset
from calotype.config.inputs import data_folder_around
from calotype.config.output_dir import default_output
from calotype.errors import ConfigError
from calotype.images import Downloads
from calotype.manifest import load_manifest


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A folder with `photos` in it, which is the current one and the user's own."""
    make_folder(tmp_path / "photos")
    (tmp_path / "photos" / "deep").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def around(path, output, **more):
    return data_folder_around(Config.parse({"dataset": {"path": path, **more}}), output)


def test_a_folder_in_the_data_however_it_is_written(home):
    (home / "link").symlink_to("photos")
    (home / "elsewhere").mkdir()
    (home / "photos" / "deep" / "out").symlink_to(home / "elsewhere")
    (home / "photos" / "loop").symlink_to(home / "photos")
    path = home.__class__
    for data in ("photos", "./photos/", "~/photos", "link", str(home / "photos"), ["a.jsonl", "photos"], "phot?s"):
        for output in ("photos", "photos/out/run", "~/photos/x", "link/deep/x", "photos/../photos/x", "elsewhere/run"):
            assert around(data, path(output)), (data, output)
        for output in ("out", "photos-lora", "photos/../out", "~/out", "elsewhere/../out"):
            assert not around(data, path(output)), (data, output)
    assert around(".", path("out")) and around("photos/**/*.jpg", path("photos/out"))
    assert around("*/deep", path("photos/deep/x")) and around("photos/*", path("photos/new/x"))
    assert not around("photos/*.jpg", path("photos/out")) and not around("*.jsonl", path("out"))
    assert not around(".", path("out"), recursive=False) and around("photos", path("photos"), recursive=False)
    assert not around("photos/image-0.png", path("photos/out"))
    assert not data_folder_around(Config.parse({"dataset": None}), path("photos"))


def test_letter_case_as_the_disk_has_it(home, monkeypatch):
    """A disk that finds `Photos` under `PHOTOS` says that they are one file."""
    os.rename(home / "photos", home / "Photos")
    (home / "PHOTOS").symlink_to("Photos")
    assert around("PHOTOS", home / "Photos" / "x") and around("Photos", home / "PHOTOS" / "x")


def test_train_refuses_it_before_it_writes(home):
    for output in ("photos/out", "photos"):
        with pytest.raises(ConfigError, match=rf"train.output_dir: {output} is in the data folder .*name a"):
            train.run(config(home / "photos", output_dir=output))
    assert not (home / "photos" / "out").exists()
    for name in ("samples", "checkpoints", "logs"):
        made = config(home / "photos", output_dir="run")
        made["dataset"]["path"] = f"./run/{name}/deep"
        with pytest.raises(ConfigError, match=rf"dataset.path: ./run/{name}/deep is in run/{name}, where"):
            train.run(made)


def command(*arguments):
    sys.argv = ["calotype", *map(str, arguments)]
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code


def test_commands_refuse_it(home, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", sys.argv)
    (home / "a.yaml").write_text(yaml.safe_dump({"dataset": {"path": "photos"}, "distill": {"student": "x"}}))
    (home / "link").symlink_to("photos")
    before = sorted(home.rglob("*"))
    for arguments, option in (
        (["distill", "a.yaml", "output_dir=photos/student"], "distill.output_dir"),
        (["preview", "photos", "-o", "photos/sheet.png"], "-o"),
        (["train", ".", "--model", "flux.1-dev"], "train.output_dir"),
        (["convert", "photos", "photos/shards", "--to", "webdataset"], "destination"),
        (["convert", "phot?s", "photos/deep/rows.csv", "--to", "csv", "--dry-run"], "destination"),
        (["convert", "a.yaml", "link/metadata.jsonl", "--to", "jsonl"], "destination"),
    ):
        assert command(*arguments) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"calotype: {option}: ") and "is in the data folder" in line
    assert sorted(home.rglob("*")) == before


def test_the_store_and_a_page_may_lie_in_the_data_and_are_no_data(home):
    store = home / "photos" / "store" / "shards"
    store.mkdir(parents=True)
    (store / "20260131T093000123456-9f86d081.safetensors").write_bytes(b"x")
    (home / "photos" / "preview.html").write_text("<p>")
    made = {"dataset": {"path": "photos"}, "tokenizer": {"_component_": "calotype.PixelsTransform"}}
    assert len(build_dataset(made)) == 4
    with _scratch(Config.parse({"dataset": {"path": "photos"}, "encodings": {"store": "photos/store"}})) as scratch:
        assert home / "photos" not in scratch.parents


def test_downloads_may_lie_in_the_data_and_are_no_data(home):
    ids = load_manifest("photos").ids.to_pylist()
    image = (home / "photos" / ids[0]).read_bytes()
    for folder in ("photos/downloads", "photos"):
        downloads = Downloads(folder)
        downloads.get("https://example.org/a.png", lambda url: image)
        assert len(downloads) == 1 and load_manifest("photos").ids.to_pylist() == ids


def test_a_run_is_called_after_its_config(home):
    made = {"dataset": {"path": "photos/"}}
    assert default_output(Config.parse(made), "cats", method=None) == "cats-lora"
    assert default_output(Config.parse(made), "cats", method="full") == "cats-full"
    assert default_output(Config.parse(made), None, method=None) == "photos-lora"
    assert (
        default_output(Config.parse({"dataset": {"path": "photos/metadata.jsonl"}}), None, method="lora")
        == "metadata-lora"
    )
    assert default_output(Config.parse({"dataset": {"path": "."}}), None, method="lora") == f"{home.name}-lora"
    assert default_output(Config.parse({}), None, method=None) == "output-lora"


def test_training_writes_there_and_an_old_run_is_not_begun_anew(home, capsys):
    made = config(home / "photos")
    written = {**made, "train": {**made["train"], "max_steps": 1}}
    (home / "cats.v2.yaml").write_text(yaml.safe_dump(written))
    (home / "output" / "checkpoints" / "step-00000250").mkdir(parents=True)
    assert command("train", "cats.v2.yaml", "--resume") == 2
    error = capsys.readouterr().err
    assert "cats.v2-lora has no checkpoint, and output has step-00000250" in error
    assert "output_dir=output resumes it, output_dir=cats.v2-lora begins anew" in error
    assert not (home / "cats.v2-lora").exists()
    sys.argv = ["calotype", "train", "cats.v2.yaml"]
    try:
        main()
    except SystemExit as ended:
        assert not ended.code
    assert (home / "cats.v2-lora" / "pytorch_lora_weights.safetensors").is_file()
    assert capsys.readouterr().out.splitlines()[-1].startswith("Done: cats.v2-lora")
