"""A change of many files: its progress, its cancellation, and when its files are flushed to the disk."""

import os

import pytest

from calotype.core import atomic
from calotype.editing import Change, Work, open_captions, work
from calotype.editing import replacement as replacements
from calotype.progress import silent

IMAGES = 12


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(work, "_PART", 4)
    for number in range(IMAGES):
        (tmp_path / f"{number:02}.jpg").write_bytes(b"x")
        (tmp_path / f"{number:02}.txt").write_text(f"old {number:02}\n")
    return tmp_path


def texts(folder):
    return {path.stem: path.read_text() for path in folder.glob("*.txt")}


def tracked(on_show=lambda what, done: None):
    """A `Track` that notes what it shows."""
    shown = []

    class Tracked:
        def __init__(self, what, unit="images"):
            self.what = what

        def __enter__(self):
            return lambda done, total: (shown.append((self.what, done, total)), on_show(self.what, done))

        def __exit__(self, *error):
            return False

    return Tracked, shown


CHANGES = {f"{number:02}.jpg": Change(captions=(f"new {number:02}",)) for number in range(IMAGES)}
STAGES = ["reading captions", "changing captions", "backing up", "writing files", "flushing files to the disk",
          "replacing files"]  # fmt: skip


def test_each_stage_shows_its_progress(folder):
    track, shown = tracked()
    written = open_captions(folder).write(CHANGES, backup=True, work=Work(track=track))
    assert not written.stopped
    assert [(what, done) for what, done, _ in shown] == [(what, done) for what in STAGES for done in (0, 4, 8, 12)]
    assert {total for _, _, total in shown} == {IMAGES}


@pytest.mark.parametrize("stage", STAGES)
def test_a_change_that_is_cancelled_leaves_each_row_old_or_new(folder, stage):
    old, cancelling = texts(folder), Work()
    track, _ = tracked(lambda what, done: cancelling.stop.set() if (what, done) == (stage, 4) else None)
    cancelling = Work(track=track, stop=cancelling.stop)
    captions = open_captions(folder)
    written = captions.write(CHANGES, backup=True, work=cancelling)
    assert written.stopped
    done = 8 if stage == "replacing files" else 0  # the part in progress is finished
    assert list(written.states) == [f"{number:02}.jpg" for number in range(done)]
    assert written.conflicts == {}
    assert texts(folder) == old | {f"{number:02}": f"new {number:02}\n" for number in range(done)}
    assert not [path for path in folder.iterdir() if path.name.startswith(".calotype-")]
    assert not list((folder / ".calotype/writing").glob("*"))
    kept = [path.read_text() for path in (folder / ".calotype").glob("backups/*/*.txt")]
    assert sorted(kept) == (sorted(old.values()) if STAGES.index(stage) > STAGES.index("backing up") else [])
    left = open_captions(folder).write(CHANGES)  # nothing is in the way of the next one
    assert len(left.states) == IMAGES


def test_every_file_is_flushed_after_the_last_is_written_and_before_the_first_is_replaced(folder, monkeypatch):
    events = []

    def noting(module, name, event):
        real = getattr(module, name)

        def call(*arguments):
            events.append((event, str(arguments[0])))
            return real(*arguments)

        monkeypatch.setattr(module, name, call)

    noting(replacements, "sync_path", "flush")
    noting(atomic.os, "fsync", "fsync")
    noting(replacements, "exchange", "replace")
    real_open = os.open
    monkeypatch.setattr(
        os, "open", lambda path, flags, *more, **options: (
            events.append(("write", str(path))) if flags & os.O_EXCL and ".calotype-" in str(path) else None,
            real_open(path, flags, *more, **options),
        )[1],
    )  # fmt: skip
    open_captions(folder).write(CHANGES, work=Work(track=silent))
    kinds = [event for event, _ in events if event != "fsync"]
    assert kinds == ["write"] * IMAGES + ["flush"] * IMAGES + ["replace"] * IMAGES
    assert {path for event, path in events if event == "flush"} == {path for event, path in events if event == "write"}
    assert sum(event == "fsync" for event, _ in events) == IMAGES
