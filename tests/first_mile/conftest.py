"""Shared by the tests of the wheel: it, its environment, and data for the commands."""

import json

import datasets
import pillow_heif
import pytest
import tiny_pipelines
from PIL import Image
from wheel_environment import Installed, build


@pytest.fixture(scope="session")
def distributions(tmp_path_factory):
    return build(tmp_path_factory.mktemp("build"))


@pytest.fixture(scope="session")
def installed(distributions, tmp_path_factory):
    environment = Installed.make(distributions[1], tmp_path_factory.mktemp("environment"))
    yield environment
    environment.server.close()


@pytest.fixture(scope="session")
def home(tmp_path_factory, photos):
    """A folder to work in: data that needs an extra each, and a config to train with."""
    home = tmp_path_factory.mktemp("home")
    (home / "photos").mkdir()
    for line in (photos / "metadata.jsonl").read_text().splitlines()[:3]:
        row = json.loads(line)
        image = home / "photos" / row["file_name"]
        image.symlink_to(photos / row["file_name"])
        image.with_suffix(".txt").write_text(row["text"][0])
    (home / "heic").mkdir()
    pillow_heif.from_pillow(Image.open(photos / "00.jpg")).save(home / "heic" / "a.heic")
    (home / "heic" / "a.txt").write_text("a photo")
    columns = {"image": [{"bytes": (photos / "00.jpg").read_bytes(), "path": None}], "text": ["a photo"]}
    datasets.disable_progress_bars()
    datasets.Dataset.from_dict(columns).cast_column("image", datasets.Image()).save_to_disk(str(home / "saved"))
    (home / "photos.yaml").write_text(
        f"model: {tiny_pipelines.tiny_pipeline('flux.1-dev')}\n"
        "dataset: {path: photos, resolution: 64}\n"
        "encodings: {store: store, on_the_fly: true, max_sequence_length: 32}\n"
        "train: {max_steps: 1, output_dir: lora, trackers: [tensorboard]}\n"
    )
    (home / "distill.yaml").write_text(
        "dataset: {path: photos, validation: 0.4}\n"
        "distill: {student: captioner, teacher: dataset, output_dir: distilled, max_steps: 1, max_tokens: 16}\n"
    )
    return home
