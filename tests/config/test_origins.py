"""`calotype config`: each value of a config, and where it came from."""

import json

import pytest
from typer.testing import CliRunner

from calotype.cli import app
from calotype.config.origins import list_settings
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
    assert found["dataset.split"] == (None, "default")
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
    assert {"key": "dataset.path", "value": "photos", "origin": "file", "file": str(file), "line": 5} in rows


def test_a_wrong_config_is_an_error_here_too(file):
    with pytest.raises(ConfigError, match=r"loader .calotype.Loader.: unknown option 'batchsize'"):
        list_settings(file, ["loader.batchsize=4"])


def test_the_schema_is_printed_as_json():
    document = json.loads(CliRunner().invoke(app, ["config", "schema"]).stdout)
    assert document["properties"]["encodings"]["description"].startswith("What is encoded")
