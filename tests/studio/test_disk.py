"""What of the disk is read at the start, for an edit and for a poll does not grow with the dataset."""

import os
from collections import Counter

import pytest
from PIL import Image

from calotype.config import load_config
from calotype.studio import disk
from calotype.studio.edits import Edit
from calotype.studio.studio import Studio

IMAGES = 300


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("many")
    Image.new("RGB", (8, 8), "red").save(folder / "image.png")
    data = (folder / "image.png").read_bytes()
    (folder / "image.png").unlink()
    for number in range(IMAGES):
        (folder / f"{number:03}.png").write_bytes(data)
        (folder / f"{number:03}.txt").write_text(f"number {number}\n")
    for path in (folder, *folder.iterdir()):
        os.utime(path, (1e9, 1e9))  # settled
    return folder


@pytest.fixture
def folder(source):
    """The files; what a test changes is put back."""
    yield source
    for path in source.glob("*.txt"):
        path.write_text(f"number {int(path.stem)}\n")


@pytest.fixture
def calls(monkeypatch):
    """Counts of calls: `stat` of files, `open` of captions, `list` of folders."""
    counts = Counter()

    def counting(name, real, wanted):
        def call(path=".", *args, **options):
            counts[name] += wanted in str(path)
            return real(path, *args, **options)

        return call

    monkeypatch.setattr(os, "stat", counting("stat", os.stat, "."))
    monkeypatch.setattr(os, "open", counting("open", os.open, ".txt"))
    monkeypatch.setattr(os, "scandir", counting("list", os.scandir, ""))
    return counts


def reviewed(folder):
    return Studio(load_config(str(folder), []))


def test_no_file_of_a_row_is_read_at_the_start_and_each_once_after_it(folder, calls):
    studio = reviewed(folder)
    assert len(studio.rows) == IMAGES
    assert calls["open"] == 0
    assert calls["stat"] < 30
    assert studio.find("")[0] == list(range(IMAGES))
    assert calls["open"] == 0
    rows = studio.details(range(60))
    assert [row["captions"] for row in rows] == [[f"number {n}"] for n in range(60)]
    studio.details(range(60))
    assert calls["open"] == 60
    assert studio.find("caption:299")[0] == [299]  # reads the others, so that nothing is missed
    assert calls["open"] == IMAGES


def test_an_edit_reads_the_files_of_its_row_only(folder, calls):
    studio = reviewed(folder)
    studio.rows.read_all()
    for number in (7, 8):
        calls.clear()
        edit = Edit(number=number, version=studio.rows.state(number).version, captions=("other",))
        assert studio.editor.edit([edit], label="").changed == [number]
        assert calls["open"] <= 6
        assert calls["stat"] <= 20
        assert (folder / f"{number:03}.txt").read_text() == "other\n"


def test_a_poll_compares_what_is_shown_and_a_part_of_the_rest(folder, calls, monkeypatch):
    monkeypatch.setattr(disk, "_FILES_PER_LOOK", 100)
    studio = reviewed(folder)
    studio.rows.read_all()
    studio.watcher.look(at_once=True)
    looked = 0
    seq = studio.rows.seq
    (folder / "041.txt").write_text("shown\n")
    (folder / "250.txt").write_text("not shown\n")
    studio.watcher._due = 0
    calls.clear()
    studio.watcher.look(range(40, 50))
    assert calls["stat"] <= 100 + 2 * 10 + 10
    assert studio.rows.state(41).captions == ("shown",)
    while studio.rows.state(250).captions != ("not shown",):
        studio.watcher._due = 0
        studio.watcher.look(range(40, 50))
        looked += 1
        assert looked <= 2 * IMAGES / 100  # a round
    assert {(one["n"], one["what"]) for one in studio.rows.changes(seq)["disk"]} == {
        (41, "captions"),
        (250, "captions"),
    }


def test_a_poll_lists_a_folder_again_only_where_its_names_have_changed(folder, calls, monkeypatch):
    monkeypatch.setattr(disk, "_FILES_PER_LOOK", 100)
    os.utime(folder, (1e9, 1e9))
    studio = reviewed(folder)
    studio.rows.read_all()
    studio.watcher.look()
    for number in range(3):
        studio.watcher._due = 0
        calls.clear()
        studio.watcher.look()
        assert calls["list"] == 0, number
    new, gone = folder / "new.png", folder / "100.png"
    new.write_bytes(gone.read_bytes())
    (folder / "new.txt").write_text("it is new\n")
    data = gone.read_bytes()
    gone.unlink()
    try:
        studio.watcher._due = 0
        studio.watcher.look()
        assert studio.rows.missing(100)
        number = studio.rows.number_of("new.png")
        assert studio.rows.state(number).captions == ("it is new",)
        assert len(studio.rows) == IMAGES + 1
    finally:
        new.unlink()
        (folder / "new.txt").unlink()
        gone.write_bytes(data)


def test_a_change_before_its_row_was_read_is_seen(folder):
    studio = reviewed(folder)
    (folder / "005.txt").write_text("before it was read\n")
    (folder / "006.png").rename(folder / "aside")
    (folder / "007.txt").unlink()
    try:
        studio.watcher.look()
        assert studio.rows.missing(6)
        assert studio.rows.state(5).captions == ("before it was read",)
        assert studio.rows.state(7).captions == ()
        assert studio.rows.state(7).problem is None
        assert [event["n"] for event in studio.rows.changes(0)["disk"] if event["what"] == "gone"] == [6]
    finally:
        (folder / "aside").rename(folder / "006.png")
        (folder / "007.txt").write_text("number 7\n")


def test_captions_that_a_metadata_file_has_later_are_shown(folder):
    studio = reviewed(folder)
    studio.details(range(10))
    listed = folder / "metadata.jsonl"
    listed.write_text('{"file_name": "003.png", "text": "from the metadata"}\n')
    try:
        studio.watcher.look()
        assert studio.rows.state(3).captions == ("from the metadata",)
        assert studio.rows.state(200).captions == ("number 200",)
    finally:
        listed.unlink()
    studio.watcher._due = 0
    studio.watcher.look()
    assert studio.rows.state(3).captions == ("number 3",)
