"""Augmentations: draws are those of training, and what was found good goes into the YAML."""

import base64
import io
from datetime import datetime

import numpy as np
import pytest
from PIL import Image
from studio_client import reviewing

from calotype.config import build_dataset, load_config
from calotype.editing import replacement
from calotype.types import SampleKey

YAML = """\
# cats
dataset:
  path: {path}
  resolution: 128
  seed: 5
  missing_captions: empty
  img_transform:
    horizontal_flip: 0.5   # no faces here
    color_jitter: {{brightness: 0.2}}
  caption_transform: {{trigger: cpelletier}}
loader: {{batch_size: 2}}
"""


@pytest.fixture
def config(folder):
    file = folder.parent / "cats.yaml"
    file.write_text(YAML.format(path=folder))
    return file


@pytest.fixture
def client(config):
    with reviewing(config) as client:
        yield client


def options(client):
    found = client.read("augment")
    return {name: found[name] for name in ("img_transform", "caption_transform")}, found


def pixels(draw):
    return Image.open(io.BytesIO(base64.b64decode(draw["image"].partition(",")[2])))


def test_draws_are_those_of_training(client, config):
    given, about = options(client)
    assert about["img_transform"]["horizontal_flip"] == 0.5
    assert (about["config"], about["resolution"], about["locked"]) == (str(config), 128, [])
    assert "rocket.jpg" in client.found("width>0")  # once sizes are known
    row = client.row("rocket.jpg")
    drawn = client.do("augment/draw", n=row["n"], epochs=[0, 1, 2, 3], **given)
    assert drawn["original"] == {"height": row["height"], "width": row["width"]}
    dataset = build_dataset(load_config(config))
    index = dataset.manifest.ids.to_pylist().index("rocket.jpg")
    for draw in drawn["draws"]:
        key = SampleKey(index, draw["epoch"])
        image, geometry = dataset.image(key)
        assert draw["flip"] == list(geometry.flip)
        assert (draw["height"], draw["width"]) == tuple(image.shape[1:])
        shown = np.asarray(pixels(draw).convert("RGB"), float)
        assert np.abs(shown - image.permute(1, 2, 0).numpy()).mean() < 6  # WebP
        assert draw["caption"]["text"] == dataset.caption(key).text == "cpelletier, a rocket at night"
    assert {tuple(draw["flip"]) for draw in drawn["draws"]} == {(False, False), (True, False)}


def test_draws_follow_the_sliders_and_the_captions_as_they_are_now(client):
    assert "chelsea.png" in client.found("width>0")  # once sizes are known
    row = client.row("chelsea.png")
    client.edit("chelsea.png", "one, two")
    drawn = client.do(
        "augment/draw",
        n=row["n"],
        epochs=[7],
        seed=1,
        img_transform={"vertical_flip": 1.0, "random_crop": {"scale": [0.5, 0.5]}},
        caption_transform={"drop_parts": 0.9, "keep_parts": 1},
    )["draws"][0]
    assert drawn["flip"] == [False, True]
    assert 0.4 < drawn["box"][2] * drawn["box"][3] / (row["height"] * row["width"]) < 0.6
    assert drawn["caption"]["parts"][0] == {"text": "one", "state": "kept"}


@pytest.mark.parametrize(
    "wrong",
    [
        {"horizontal_flip": 2},
        {"horizontal_flop": 1},
        {"rotate": "x"},
        {"custom": {"_component_": "os.getcwd"}},
        {"_component_": "os.getcwd"},
        {"color_jitter": {"_component_": "os.getcwd"}},
        {"color_jitter": [{"_component_": "os.getcwd"}]},
        {"resize": [[{"_component_": "os.getcwd"}]]},
    ],
)
def test_wrong_options_and_code_are_refused(client, wrong):
    error = client.do("augment/draw", 422, n=0, epochs=[0], img_transform=wrong)["error"]
    assert error["kind"] == "config" and "img_transform" in error["message"]
    given, about = options(client)
    client.do("augment/save", 422, version=about["version"], **given | {"img_transform": wrong})


@pytest.mark.parametrize("epochs", [[], [-1], ["0"], [True], [0] * 17])
def test_epochs_that_make_no_sense(client, epochs):
    assert client.do("augment/draw", 422, n=0, epochs=epochs)["error"]["kind"] == "bad_request"


def test_saving_changes_what_was_changed(client, config):
    given, about = options(client)
    given["img_transform"] |= {"horizontal_flip": 0.25, "rotate": 5}
    given["caption_transform"] |= {"drop": 0.1}
    before = config.read_text()
    shown = client.do("augment/save", version=about["version"], dry_run=True, **given)
    assert not shown["written"] and config.read_text() == before
    assert "+    horizontal_flip: 0.25   # no faces here" in shown["diff"]
    saved = client.do("augment/save", version=about["version"], **given)
    assert saved["written"] and saved["lost"] == []
    assert config.read_text() == saved["text"] == shown["text"]
    assert "# no faces here" in saved["text"] and saved["text"].startswith("# cats\n")
    with open(saved["backup"]) as file:
        assert file.read() == before
    assert load_config(config)["dataset"]["img_transform"] == given["img_transform"]
    assert client.read("augment")["version"] == saved["version"]
    assert client.do("augment/save", 409, version=about["version"], **given)["error"]["kind"] == "conflict"


def test_code_of_the_config_stays_and_runs(folder):
    file = folder.parent / "code.yaml"
    file.write_text(
        f"dataset:\n  path: {folder}\n  missing_captions: empty\n  resolution: 64\n  img_transform:\n"
        "    custom:\n    - {_component_: torchvision.transforms.v2.RandomInvert, p: 1.0}\n    rotate: 2\n"
    )
    with reviewing(file) as client:
        given, about = options(client)
        assert about["img_transform"] == {"rotate": 2} and about["locked"] == ["img_transform.custom"]
        row = client.row("chelsea.png")
        plain = pixels(client.do("augment/draw", n=row["n"], epochs=[0], **given)["draws"][0])
        dataset = build_dataset(load_config(file))
        image, _ = dataset.image(SampleKey(dataset.manifest.ids.to_pylist().index("chelsea.png")))
        assert abs(np.asarray(plain.convert("RGB"), float).mean() - image.float().mean().item()) < 3
        saved = client.do("augment/save", version=about["version"], **given | {"img_transform": {"rotate": 3}})
        assert "RandomInvert" in saved["text"] and "rotate: 3" in saved["text"]


def test_a_bare_folder_gets_a_config(folder, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with reviewing(folder) as client:
        about = client.read("augment")
        assert about["config"] is None and about["version"] is None
        assert about["target"] == str(tmp_path / "photos.yaml")
        saved = client.do("augment/save", img_transform={"horizontal_flip": 0.5}, caption_transform={})
        assert saved["backup"] is None
        config = load_config(tmp_path / "photos.yaml")
        assert config["dataset"] == {"path": str(folder), "img_transform": {"horizontal_flip": 0.5}}
        assert client.do("augment/save", 409, version=None, img_transform={"rotate": 2})["error"]["kind"] == "conflict"


def test_two_saves_in_one_second_keep_both_backups(client, config):
    before = config.read_text()
    given, _ = options(client)
    backups = []
    for rotate in (1, 2, 3):
        given["img_transform"]["rotate"] = rotate
        backups.append(client.do("augment/save", version=client.read("augment")["version"], **given)["backup"])
    assert len(set(backups)) == 3
    with open(backups[0]) as first, open(backups[2]) as last:
        assert first.read() == before and "rotate: 2" in last.read()


def test_a_backup_goes_nowhere_through_a_planted_link(client, config, tmp_path, monkeypatch):
    (tmp_path / "victim").write_text("mine")

    class Then(datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime(2026, 1, 2)

    monkeypatch.setattr("calotype.editing.hidden_folder.datetime", Then)
    config.with_name("cats.yaml.bak-2026-01-02_00-00-00").symlink_to(tmp_path / "victim")
    given, about = options(client)
    given["img_transform"]["rotate"] = 1
    saved = client.do("augment/save", version=about["version"], **given)
    assert saved["backup"].endswith("00-00-00-2") and (tmp_path / "victim").read_text() == "mine"


def test_a_config_that_an_editor_saves_just_before_the_rename_is_a_conflict(client, config, monkeypatch):
    real, saves = replacement.exchange, iter([1])

    def exchange(name, target):
        if next(saves, None):
            config.write_text("# a person's\n" + config.read_text())
        return real(name, target)

    monkeypatch.setattr(replacement, "exchange", exchange)
    given, about = options(client)
    given["img_transform"]["rotate"] = 1
    assert client.do("augment/save", 409, version=about["version"], **given)["error"]["kind"] == "conflict"
    assert config.read_text().startswith("# a person's\n# cats\n") and "rotate" not in config.read_text()


@pytest.mark.parametrize(
    "body",
    [
        '{"img_transform": ' + '{"a": ' * 900 + "1" + "}" * 900 + "}",
        '{"img_transform": ' + "[" * 5000 + "]" * 5000 + "}",
        '{"img_transform": {"rotate": NaN}}',
        '{"img_transform": {"rotate": 1' + "0" * 400 + "}}",
        '{"n": 0, "epochs": [0], "caption_transform": {"drop": 1' + "0" * 400 + "}}",
        '{"img_transform": {"rotate": -Infinity}}',
    ],
    ids=["deep", "deep list", "nan", "large", "large", "infinite"],
)
@pytest.mark.parametrize("path", ["augment/draw", "augment/save"])
def test_bodies_that_no_page_sends_are_refused(client, path, body):
    answer = client.post(f"/api/{path}", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 422 and answer.json()["error"]["kind"] == "bad_request"


@pytest.mark.parametrize("number", ["9" * 5000, "-1", "1.5", "\u0669", "x", "99999999999"])
def test_numbers_of_no_image_are_not_there(client, number):
    assert client.get(f"/thumb/{number}").status_code == 404
    assert client.get(f"/image/{number}").status_code == 404
