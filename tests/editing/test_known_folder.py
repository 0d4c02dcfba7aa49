"""A folder is listed once, and what other programs add or remove between two writes is noticed all the same."""

import shutil

import pytest

from calotype.config import Config, load_config
from calotype.editing import Change, open_captions
from calotype.editing import known_folder as module
from calotype.studio.source import open_source


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "sub").mkdir()
    for name in ("a.jpg", "b.jpg", "sub/c.jpg"):
        (tmp_path / name).write_bytes(b"")
        (tmp_path / name).with_suffix(".txt").write_text(f"caption of {name}\n")
    return tmp_path


@pytest.fixture
def listings(monkeypatch):
    """How often a folder was listed."""
    found = []
    real = module.list_folder
    monkeypatch.setattr(module, "list_folder", lambda *given, **more: found.append(given) or real(*given, **more))
    return found


def test_own_writes_list_nothing_again(folder, listings):
    (folder / "new.jpg").write_bytes(b"")
    captions = open_captions(folder)
    for text in ("one", "two"):
        assert captions.write({"a.jpg": [text], "new.jpg": [text]}).states["new.jpg"].captions == (text,)
    captions.write({"b.jpg": Change(rejected=True)})  # makes metadata.jsonl
    states = captions.read()
    assert states["b.jpg"].rejected
    assert states["new.jpg"].captions == ("two",)
    assert len(listings) == 1
    assert states == open_captions(folder).read()


@pytest.mark.parametrize("change", ["priority", "metadata", "removed", "image", "renamed"])
def test_changes_of_others_between_writes(folder, change):
    captions = open_captions(folder)
    before = captions.read()
    captions.write({"b.jpg": ["mine"]})
    if change == "priority":
        (folder / "a.jpg.txt").write_text("has priority")
    elif change == "metadata":
        (folder / "metadata.jsonl").write_text('{"file_name": "a.jpg", "text": "in metadata"}\n')
    elif change == "removed":
        (folder / "a.jpg").unlink()
    elif change == "image":
        shutil.copy(folder / "a.jpg", folder / "a.png")
    else:
        (folder / "sub").rename(folder / "other")
    assert captions.read() == open_captions(folder).read()
    written = captions.write({"a.jpg": ["over it"]}, expect={"a.jpg": before["a.jpg"].version})
    assert bool(written.conflicts) is (change in ("priority", "metadata", "removed"))
    assert captions.read() == open_captions(folder).read()


def test_files_that_were_written_are_returned_with_their_state(folder):
    written = open_captions(folder).write({"a.jpg": ["x"], "b.jpg": Change(rejected=True)})
    assert {path.name for path in written.files} == {"a.txt", "metadata.jsonl"}
    for path, state in written.files.items():
        assert (state.size, state.inode) == (path.stat().st_size, path.stat().st_ino)


def test_rows_without_a_manifest_are_those_of_the_manifest(folder):
    (folder / "a.jpg").rename(folder / "ä b.JPG")
    (folder / "sub" / "d.png").write_bytes(b"")
    (folder / "sub" / "d.png.txt").write_text("one\ntwo\n")
    (folder / "b.txt").write_bytes(b"\xff\xfe\xfa")
    (folder / "10_dog").mkdir()
    (folder / "10_dog" / "e.webp").write_bytes(b"")
    source = open_source(Config.parse(load_config(str(folder))), file=None)
    assert source.captions.one_row_per_image
    rows, manifest = source.load(), source.manifest()
    assert rows.ids == manifest.ids.to_pylist()
    assert rows.refs == manifest.refs() == [manifest[index].image for index in range(len(manifest))]
    loaded = dict(zip(rows.ids, manifest.captions.to_pylist(), strict=True))
    assert rows.states is None  # not read yet
    states = source.captions.read_beside(rows.ids)
    assert states == source.captions.read(loaded=loaded) == source.captions.read()
    assert [list(state.captions) or [""] for state in states.values()] == manifest.captions.to_pylist()
    assert (rows.root, rows.kind) == (manifest.root, manifest.describe()["format"])
