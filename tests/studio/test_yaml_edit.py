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


STYLES = {
    "a list where its key begins": "dataset:\n  img_transform:\n    resize:\n    - 3\n    - 4\n    rotate: 3\nx: 1\n",
    "at the end": "dataset:\n  img_transform:\n    rotate: 3\n    resize:\n    - 3\n    - 4",
    "indented": "dataset:\n  img_transform:\n    resize:\n      - 3\n      - 4\n    rotate: 3\n",
    "with comments": (
        "dataset:\n  img_transform:\n    resize:  # sizes\n    # first\n    - 3  # three\n    - 4\n\n"
        "    # about rotate\n    rotate: 3\n"
    ),
    "of lists": "dataset:\n  img_transform:\n    rotate: 3\n    resize:\n    - - 1\n      - 2\n    - - 3\n  path: x\n",
    "of mappings": "dataset:\n  img_transform:\n    resize:\n    - a: 1\n      b: 2\n    - c: 3\n    rotate: 3\n",
    "with an empty item": "dataset:\n  img_transform:\n    rotate: 3\n    resize:\n    -\n    - 4\n",
    "others around": "dataset:\n  path:\n  - a\n  - b\n  img_transform:\n    rotate: 3\n    resize: [3]\nx:\n- a\n",
    "CRLF": "dataset:\r\n  img_transform:\r\n    resize:\r\n    - 3\r\n    - 4\r\n    rotate: 3\r\n",
    "flow over lines": "dataset:\n  img_transform: {rotate: 3,\n    resize: [3,\n     4],  # c\n  }\n  path: x\n",
    "JSON": '{\n  "dataset": {\n    "img_transform": {\n      "rotate": 3,\n      "resize": [3, 4]\n    }\n  }\n}\n',
    "quoted keys": "\"dataset\":\n  'img_transform':\n    \"resize\":\n    - 3\n    'rotate': 3\n",
    "explicit keys": "? dataset\n: img_transform:\n    rotate: 3\n    resize:\n    - 3\n",
    "an alias as value": "x: &r 3\ny: &l [3, 4]\ndataset:\n  img_transform:\n    rotate: *r\n    resize: *l\n",
    "an anchor of its own": "dataset:\n  img_transform: &t\n    rotate: &a 3\n    resize: &b\n    - 3\n",
    "tags": "dataset:\n  img_transform:\n    rotate: !!int 3\n    resize: !!seq\n    - 3\n",
    "texts": "dataset:\n  img_transform:\n    rotate: 3\n    resize:\n    - |\n      a\n    - >-\n      c\n\n# e\n",
    "a document's marks and a BOM": "\ufeff---\ndataset:\n  img_transform:\n    rotate: 3\n    resize:\n    - 3\n...\n",
}
CHANGES = {
    "another value": {"rotate": 7},
    "another list": {"resize": [9, [8], {"a": "x: y, z"}]},
    "a list in place of a number": {"rotate": [1, 2]},
    "a number in place of a list": {"resize": 5},
    "one more": {"flip": 0.5},
    "one more list": {"jitter": [1, {"a": 2}]},
    "one fewer": {"resize": None},
    "the other fewer": {"rotate": None},
    "all at once": {"rotate": None, "resize": [1], "flip": True},
    "none at all": {"rotate": None, "resize": None},
}


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("change", CHANGES)
def test_every_style_can_be_changed_and_nothing_else_is(style, change):
    text = STYLES[style]
    before = yaml.safe_load(text)
    section = before["dataset"]["img_transform"]
    wanted = {key: value for key, value in (section | CHANGES[change]).items() if value is not None}
    made = edit_yaml(text, {PLACE: (section, wanted)})
    assert yaml.safe_load(made) == before | {"dataset": before["dataset"] | {"img_transform": wanted}}
    assert made.count("\r\n") == made.count("\n") or "\r" not in text
    if style == "with comments":
        gone = {"three"} if change in ("another list", "a number in place of a list", "all at once") else set()
        gone |= {"sizes", "first", "three"} if change == "one fewer" else set()
        gone |= {"sizes", "first", "three", "about rotate"} if change == "none at all" else set()
        assert {comment.removeprefix("# ") for comment in lost_comments(text, made)} == gone


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("dataset:\n  img_transform: &t {rotate: 3}\nother: *t\n", {"rotate": 3}),
        ("t: &t {rotate: 3, x: 1}\ndataset:\n  img_transform: *t\n", {"rotate": 3, "x": 1}),
        ("b: &b {rotate: 3, x: 1}\ndataset:\n  img_transform:\n    <<: *b\n    x: 2\n", {"rotate": 3, "x": 2}),
        ("dataset:\n  img_transform:\n    rotate: 3\n    rotate: 3\n", {"rotate": 3}),
        ("dataset: [\n", {"rotate": 3}),
        ("a\tb: : c\n\t- d", {"rotate": 3}),
    ],
)
def test_what_can_t_be_changed_without_harm_is_refused(text, found):
    wanted = {"x": 2} if "<<" in text else found | {"rotate": 4}
    with pytest.raises(ConfigError, match=r"by hand|not valid YAML"):
        edit_yaml(text, {PLACE: (found, wanted)})
