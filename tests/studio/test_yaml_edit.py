"""Values changed in a YAML text, with everything else left as its author wrote it."""

import pytest
import yaml

from calotype.errors import ConfigError
from calotype.studio.yaml_edit import edit_yaml, lost_comments

TEXT = """\
# A LoRA of cats.
size: 512
model: flux.1-dev   # the large one
dataset:
  path: photos  # here
  img_transform:
    horizontal_flip: 0.5   # no faces
    # colours
    color_jitter:
      brightness: 0.1  # careful
      contrast: [0.5, 1.5]
    resize: ${size}
  # words
  caption_transform: {drop: 0.05}  # guidance
loader:
  batch_size: 4
"""
FOUND = {
    "horizontal_flip": 0.5,
    "color_jitter": {"brightness": 0.1, "contrast": [0.5, 1.5]},
    "resize": 512,
}
PLACE = ("dataset", "img_transform")


def edited(text, found, wanted, place=PLACE):
    made = edit_yaml(text, {place: (found, wanted)})
    section = yaml.safe_load(made)
    for key in place:
        section = section[key]
    assert {key: value for key, value in section.items() if value != "${size}"} == {
        key: value for key, value in wanted.items() if key != "resize" or "${size}" not in made
    }
    return made


def test_only_what_differs_is_touched():
    wanted = {"horizontal_flip": 0.25, "color_jitter": {"brightness": 0.2}, "resize": 512, "rotate": 5}
    made = edited(TEXT, FOUND, wanted)
    changed = [line for line in made.splitlines() if line not in TEXT.splitlines()]
    assert changed == ["    horizontal_flip: 0.25   # no faces", "      brightness: 0.2  # careful", "    rotate: 5"]
    assert [line for line in TEXT.splitlines() if line not in made.splitlines()][-1] == "      contrast: [0.5, 1.5]"
    assert lost_comments(TEXT, made) == []


def test_the_same_again_changes_nothing():
    assert edit_yaml(TEXT, {PLACE: (FOUND, FOUND | {"horizontal_flip": 0.5, "resize": 512.0})}) == TEXT


@pytest.mark.parametrize(
    "text",
    [
        "dataset:\n  path: x\n",
        "dataset:\n  path: x",
        "dataset:\n  path: x\n  img_transform:\nloader: {batch_size: 1}\n",
        "dataset:\n  path: x\n  img_transform: null\n",
        "dataset: {path: x}\n",
        "dataset: {path: x, }  # flow\n",
        "dataset:\r\n  path: x\r\nloader: {batch_size: 1}\r\n",
    ],
)
def test_a_section_that_is_new(text):
    made = edited(text, None, {"rotate": 3, "color_jitter": {"hue": 0.1}})
    assert ("\r\n" in made) == ("\r\n" in text)
    assert not made.replace("\r\n", "").count("\r")


@pytest.mark.parametrize(
    "text",
    [
        "dataset:\n  img_transform:\n    rotate: 3 # c\n    resize: 64\n",
        "dataset:\n  img_transform:\n    resize: 64\n    rotate: 3",
        "dataset:\n  img_transform: {rotate: 3, resize: 64}",
        "dataset:\n  img_transform:\n    rotate:\n      - 3\n      - 4\n    resize: 64\n",
    ],
)
def test_an_option_that_goes(text):
    found = yaml.safe_load(text)["dataset"]["img_transform"]
    made = edited(text, found, {"resize": 64})
    assert lost_comments(text, made) == (["# c"] if "# c" in text else [])
    edited(text, found, {})


def test_texts_are_quoted_where_they_must_be():
    wanted = {"trigger": "a: b, c # d", "template": "{trigger} {caption}", "separator": "'"}
    edited(TEXT, {"drop": 0.05}, wanted, ("dataset", "caption_transform"))


def test_what_is_shared_through_an_anchor_is_refused():
    text = "dataset:\n  img_transform: &t {rotate: 3}\nother: *t\n"
    with pytest.raises(ConfigError, match="by hand"):
        edit_yaml(text, {PLACE: ({"rotate": 3}, {"rotate": 4})})
