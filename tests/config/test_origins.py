"""`calotype config`: each value of a config, and where it came from."""

import json

import pytest
from typer.testing import CliRunner

from calotype.cli import app
from calotype.config import Config
from calotype.config.origins import list_settings
from calotype.config.reference import json_schema, key_tables, list_keys
from calotype.errors import ConfigError

TEXT = """\
side: 512
common: &common
  drop: 0.1
dataset:
  path: photos
  resolution: ${side}
  img_transform: {horizontal_flip: 0.5}
  caption_transform:
    <<: *common
    trigger: sks
  buckets:
    multiple: 64
loader: {batch_size: 2, seed: null}
trainer: {devices: 2}
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text(TEXT, encoding="utf-8")
    return path


def settings(source, *overrides):
    return {one.key: (one.value, one.place) for one in list_settings(source, overrides)}


def test_a_default_that_other_values_decide_says_how(file):
    """A default is never shown as one that no run has: `output` where the run goes to c-lora."""
    found = settings(file, "max_steps=10")
    assert found["train.output_dir"] == ("c-lora", "default: the config's name with -lora, or -full for method: full")
    assert settings(file, "method=full")["train.output_dir"][0] == "c-full"
    assert settings("photos", "max_steps=1")["train.output_dir"][0] == "photos-lora"
    assert settings(file, "output_dir=mine")["train.output_dir"] == ("mine", "command line")
    assert found["dataset.missing_captions"][1].startswith("default: error; empty where a trigger")
    without = settings("photos", "loader.batch_size=2")
    assert without["dataset.buckets"] == (None, "default: true; false where img_transform has resize")
    assert without["loader.seed"] == (None, "default: the dataset's")


def test_keys_and_schema_say_how_a_default_is_found():
    (key,) = (one for one in list_keys("train") if one.key == "train.output_dir")
    assert key.default is None and key.derived.startswith("the config's name")
    shown = json_schema()["$defs"]["TrainConfig"]["properties"]["output_dir"]
    assert "default" not in shown and f"Default: {key.derived}." in shown["description"]
    assert f"| `output_dir` | {key.derived} |" in key_tables()
    assert "Default: the config's name" in " ".join(CliRunner().invoke(app, ["config", "keys", "train"]).stdout.split())
    assert "None" not in "".join(one.meaning for name in Config.sections for one in list_keys(name))  # YAML says null


def test_a_value_is_of_a_line_of_the_command_line_or_a_default(file):
    found = settings(file, "max_steps=10", "img_transform={vertical_flip: 0.5}", "loader.batch_size=4", "seed=3")
    assert found["dataset.path"] == ("photos", f"{file}:5")
    assert found["dataset.resolution"] == (512, f"{file}:6")
    assert found["dataset.img_transform.horizontal_flip"] == (0.5, f"{file}:7")
    assert found["dataset.img_transform.vertical_flip"] == (0.5, "command line")
    assert found["dataset.caption_transform.trigger"] == ("sks", f"{file}:10")
    assert found["dataset.caption_transform.drop"] == (0.1, f"{file}:3")
    assert found["dataset.buckets.multiple"] == (64, f"{file}:12")
    assert found["dataset.buckets.max_aspect"] == (2.0, "default")
    assert found["dataset.seed"] == (3, "command line")
    assert found["dataset.split"] == (None, "default: train")
    assert found["loader.batch_size"] == (4, "command line")
    assert found["loader.prefetch"] == (2, "default")
    assert found["train.max_steps"] == (10, "command line")
    assert found["train.learning_rate"] == (1e-4, "default")
    assert found["trainer.devices"] == (2, f"{file}:14")
    assert not [key for key in found if key.startswith("distill")]


def test_a_folder_is_of_the_command_line_and_a_component_keeps_its_options():
    assert settings("photos")["dataset.path"] == ("photos", "command line")
    found = settings("photos", "dataset={_component_: mine.data, x: 1}")
    assert found["dataset._component_"] == ("mine.data", "command line")
    assert found["dataset.x"] == (1, "command line")


def test_the_command_prints_them_for_people_and_programs(file):
    text = CliRunner().invoke(app, ["config", "show", str(file), "resolution=256"]).stdout
    line = next(line for line in text.splitlines() if line.startswith("dataset.resolution"))
    assert line.split() == ["dataset.resolution:", "256", "#", "command", "line"]
    rows = json.loads(CliRunner().invoke(app, ["config", "show", str(file), "--json"]).stdout)
    assert {
        "key": "dataset.path",
        "value": "photos",
        "origin": "file",
        "file": str(file),
        "line": 5,
        "derived": None,
    } in rows


def test_a_wrong_config_is_an_error_here_too(file):
    with pytest.raises(ConfigError, match=r"loader .calotype.Loader.: unknown option 'batchsize'"):
        list_settings(file, ["loader.batchsize=4"])


def test_the_schema_is_printed_as_json():
    document = json.loads(CliRunner().invoke(app, ["config", "schema"]).stdout)
    assert document["properties"]["encodings"]["description"].startswith("What is encoded")
