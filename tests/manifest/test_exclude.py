"""The option `exclude`: the same files are left out wherever a folder is listed."""

import json
import os

import pytest

from calotype import captioning, check
from calotype.captioning.backend import CaptionAnswer
from calotype.config import Config
from calotype.editing import open_captions
from calotype.errors import ConfigError, ManifestError
from calotype.manifest import load_manifest
from calotype.manifest.exclude import Exclude, parse_exclude
from calotype.studio.source import open_source


class Backend:
    """Says the same of each image."""

    name, model, batch_size, concurrency, parameters = "same", "m", 4, 1, {"temperature": 0}

    def caption(self, requests):
        return [CaptionAnswer(text="an image") for _ in requests]

    def close(self):
        pass


@pytest.mark.parametrize(
    ("pattern", "matching", "others"),
    [
        ("*.gif", ["a.gif", "b/c.gif"], ["a.gif.jpg"]),
        ("a?.png", ["ab.png", "x/ac.png"], ["a/b.png", "abc.png"]),
        ("[ab]x.jpg", ["ax.jpg", "q/bx.jpg"], ["cx.jpg"]),
        ("[!ab]x.jpg", ["cx.jpg"], ["ax.jpg", "bx.jpg"]),
        ("/a.png", ["a.png"], ["b/a.png"]),
        ("a/*.png", ["a/b.png"], ["b/a/c.png", "a/b/c.png"]),
        ("a/**/d.jpg", ["a/d.jpg", "a/b/c/d.jpg"], ["d.jpg"]),
        ("**/d.jpg", ["d.jpg", "a/d.jpg"], ["xd.jpg"]),
        ("masks/", ["masks/a.png", "b/masks/c/d.png"], ["masks", "masks.png"]),
        ("masks", ["masks/a.png", "masks"], ["masks.png"]),
        ("a/**", ["a/b.png", "a/b/c.png"], ["b/a/c.png"]),
        ("a+(1).jpg", ["a+(1).jpg"], ["aa1.jpg"]),
    ],
)
def test_patterns_are_those_of_a_gitignore(pattern, matching, others):
    assert [name for name in (*matching, *others) if Exclude([pattern]).match_within(name)] == matching


@pytest.mark.parametrize("option", [3, [3], "", "/", {"a": 1}, "!a.jpg", ["[z-a]"]])
def test_what_is_no_pattern_is_an_error(option):
    with pytest.raises(ConfigError, match="exclude: "):
        parse_exclude(option)


def test_files_and_folders_are_left_out_and_counted(put):
    put("a.jpg"), put("a.txt", "a"), put("b.gif"), put("b.txt", "of b"), put("old/c.jpg"), put("old/c.txt", "c")
    os.symlink(put.root / "nowhere", put.root / "old" / "gone")
    manifest = load_manifest(put.root, exclude=["*.gif", "old/"])
    assert manifest.ids.to_pylist() == ["a.jpg"]
    assert [(entry.kind, entry.id.removeprefix(f"{put.root}/")) for entry in manifest.ledger] == [
        ("excluded", "b.gif"),
        ("excluded", "old/"),
    ]
    assert manifest.describe()["left_out"] == {"excluded": 2}
    assert list(open_captions(put.root, exclude=["*.gif", "old/"]).read()) == ["a.jpg"]


def test_rows_of_metadata_files_and_globs_too(put):
    put("a.jpg"), put("x/b.jpg")
    lines = [{"file_name": name, "text": name} for name in ("a.jpg", "x/b.jpg")]
    put("metadata.jsonl", "\n".join(map(json.dumps, lines)))
    assert load_manifest(put.root, exclude="x/*").ids.to_pylist() == ["a.jpg"]
    manifest = load_manifest(str(put.root / "**/*.jpg"), exclude="/x/", missing_captions="empty")
    assert manifest.ids.to_pylist() == ["a.jpg"]


def test_whatever_lists_the_folder_leaves_out_the_same(put):
    put("a.jpg"), put("a.txt", "a"), put("old/b.jpg"), put("old/b.txt", "b"), put("old/clip.mp4", "")
    config = {"dataset": {"path": str(put.root), "exclude": "old"}}
    source = open_source(Config.parse(config), file=None)
    assert list(source.captions.read()) == source.manifest().ids.to_pylist() == ["a.jpg"]
    report = captioning.run(config, backend=Backend(), presets=["short"], mode="add", dry_run=5)
    assert [example.id for example in report.examples] == ["a.jpg"]
    found = {found.where for found in check.run(config | {"model": None}).findings}
    assert "old/" in found and not found & {"old/b.jpg", "old/b.txt", "old/clip.mp4"}


def test_a_pattern_without_effect_is_an_error(put):
    put("a.jpg"), put("a.txt", "a")
    with pytest.raises(ManifestError, match=r"exclude='maks/': nothing in .* matches this pattern"):
        load_manifest(put.root, exclude=["a.txt", "maks/"], missing_captions="empty")
    manifest = load_manifest(put.root, exclude="maks/", on_error="skip")
    assert [entry.id for entry in manifest.ledger] == ["exclude='maks/'"]
    with pytest.raises(ConfigError, match="exclude: is for folders"):
        load_manifest(put("rows.jsonl", '{"image": "a.jpg", "text": "a"}'), exclude="a.jpg")
