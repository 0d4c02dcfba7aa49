"""Captions that another program saves while they are changed here: its text survives, and the row is a conflict."""

import json
import os
import random
import signal
import threading
import warnings

import pytest

from calotype.editing import hidden_folder, open_captions, renames, replacement
from calotype.editing.replacement import digest_of, replacing
from calotype.errors import EditError

NAMES = [f"{number:02d}" for number in range(30)]


@pytest.fixture
def folder(tmp_path):
    """Images with a caption file each."""
    for name in NAMES:
        (tmp_path / f"{name}.jpg").write_bytes(b"x")
        (tmp_path / f"{name}.txt").write_text(f"old {name}\n")
    return tmp_path


@pytest.fixture(params=["exchange", "steps"])
def before_exchange(request, monkeypatch):
    """Calls a function with the file that is about to be replaced; on a system that can exchange files or can't."""
    calls = []
    real = replacement.exchange if request.param == "exchange" else (lambda name, target: False)

    def exchange(name, target):
        for call in calls:
            call(name, target)
        return real(name, target)

    monkeypatch.setattr(replacement, "exchange", exchange)
    return calls.append


def save(path, text):
    """As an editor does: a new file in the old one's place."""
    new = path.with_name(".editor")
    new.write_text(text)
    new.replace(path)


def once(act):
    calls = []

    def call(name, target):
        if not calls:
            calls.append(target)
            act(name, target)

    return call


def change(folder, *ids, **more):
    captions = open_captions(folder)
    seen = captions.read()
    expect = {id: state.version for id, state in seen.items()}
    return captions.write({id: [f"new {id}"] for id in ids or seen}, expect=expect, **more)


def leftovers(folder):
    return [path.name for path in folder.rglob(".calotype-*")]


def test_a_text_that_is_saved_just_before_the_rename_survives(folder, before_exchange):
    other = folder / "07.txt"
    before_exchange(lambda name, target: target == other and save(other, "by a person\n"))
    written = change(folder, backup=True)
    assert other.read_text() == "by a person\n"
    assert list(written.conflicts) == ["07.jpg"]
    assert written.conflicts["07.jpg"].captions == ("by a person",)
    assert "07.jpg" not in written.states and len(written.states) == len(NAMES) - 1
    assert (folder / "08.txt").read_text() == "new 08.jpg\n"
    assert not leftovers(folder)


def test_a_row_that_may_hold_anything_is_written_over_what_was_saved(folder, before_exchange):
    other = folder / "07.txt"
    before_exchange(once(lambda name, target: save(other, "by a person\n")))
    written = open_captions(folder).write({"07.jpg": ["new"]}, backup=True)
    assert not written.conflicts and other.read_text() == "new\n"
    assert (written.backup / "07.txt").read_text() == "by a person\n"


def test_a_file_that_is_deleted_meanwhile_is_not_made_again(folder, before_exchange):
    other = folder / "07.txt"
    before_exchange(lambda name, target: target == other and other.unlink(missing_ok=True))
    written = change(folder, "07.jpg", "08.jpg")
    assert list(written.conflicts) == ["07.jpg"] and not other.exists()


def test_a_caption_file_that_another_program_makes_meanwhile_is_left(folder, before_exchange, monkeypatch):
    (folder / "07.txt").unlink()
    real = replacement.rename_new

    def rename_new(name, target):
        save(folder / "07.txt", "by a person\n")
        return real(name, target)

    monkeypatch.setattr(replacement, "rename_new", rename_new)
    written = change(folder, "07.jpg")
    assert written.conflicts["07.jpg"].captions == ("by a person",)
    assert (folder / "07.txt").read_text() == "by a person\n" and not leftovers(folder)


@pytest.mark.parametrize("can", [True, False], ids=["one step", "two steps"])
def test_an_existing_file_is_never_replaced(tmp_path, monkeypatch, can):
    if not can:
        monkeypatch.setattr(renames, "_renameat2", lambda: None)
    new, taken, link = (tmp_path / name for name in ("new", "taken", "link"))
    new.write_text("new"), taken.write_text("mine"), link.symlink_to("nowhere")
    assert not renames.rename_new(new, taken) and not renames.rename_new(new, link)
    assert (new.read_text(), taken.read_text(), link.is_symlink()) == ("new", "mine", True)
    assert renames.rename_new(new, tmp_path / "free") and not new.exists()


@pytest.mark.parametrize("form", ["jsonl", "csv"])
def test_other_rows_of_a_data_file_are_merged(tmp_path, before_exchange, form):
    """The file is replaced as a whole: what another program did to other rows stays, and ours are written."""
    for name in "ab":
        (tmp_path / f"{name}.jpg").write_bytes(b"x")
    file = tmp_path / f"metadata.{form}"

    def text(**captions):
        if form == "csv":
            return "file_name,text\n" + "".join(f"{name}.jpg,{caption}\n" for name, caption in captions.items())
        rows = ({"file_name": f"{name}.jpg", "text": caption} for name, caption in captions.items())
        return "".join(json.dumps(row) + "\n" for row in rows)

    file.write_text(text(a="old a", b="old b"))
    before_exchange(once(lambda name, target: save(file, text(a="old a", b="by a person"))))
    written = change(tmp_path, "a.jpg")
    assert not written.conflicts and written.states["a.jpg"].captions == ("new a.jpg",)
    assert file.read_text().replace('", "', '","') == text(a="new a.jpg", b="by a person").replace('", "', '","')

    file.write_text(text(a="old a", b="old b"))
    before_exchange(once(lambda name, target: save(file, text(a="by a person", b="old b"))))
    written = change(tmp_path)
    assert list(written.conflicts) == ["a.jpg"] and written.conflicts["a.jpg"].captions == ("by a person",)
    assert {state.captions for state in open_captions(tmp_path).read().values()} == {("by a person",), ("new b.jpg",)}


def test_a_program_that_had_the_file_open_keeps_what_it_writes_later(folder, before_exchange):
    opened = (folder / "07.txt").open("r+")

    def write_later(name, target):
        if target.name == "20.txt" and not opened.closed:
            opened.truncate(0)
            opened.write("by a person, in place\n")
            opened.close()

    before_exchange(write_later)
    written = change(folder)
    assert (folder / "07.txt").read_text() == "by a person, in place\n"
    assert list(written.conflicts) == ["07.jpg"]


def test_the_last_of_several_saves_stays(folder, before_exchange, request):
    """Also one that comes while an earlier one is put back."""
    texts = iter(f"save {number}\n" for number in range(3))
    other = folder / "07.txt"

    def call(name, target):
        if target == other and (text := next(texts, None)) is not None:
            save(other, text)

    before_exchange(call)
    written = change(folder, "07.jpg")
    assert other.read_text() == written.conflicts["07.jpg"].captions[0] + "\n"
    in_steps = request.node.callspec.params["before_exchange"] == "steps"
    assert other.read_text() == ("save 0\n" if in_steps else "save 2\n")  # in steps nothing was replaced yet


def test_files_that_belong_together_are_all_put_or_none(tmp_path, before_exchange):
    one, two, new = (tmp_path / name for name in ("one", "two", "new"))
    one.write_text("1"), two.write_text("2")
    found = {one: digest_of(one), new: None, two: digest_of(two)}
    before_exchange(lambda name, target: target == two and save(two, "by a person"))
    with replacing({one: b"a", new: b"n", two: b"b"}, found, None) as replacement:
        assert not replacement.put([one, new, two])
    assert (one.read_text(), new.exists(), two.read_text()) == ("1", False, "by a person")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "two"]


def test_a_program_that_saves_all_the_time_is_a_conflict_and_no_hang(tmp_path, before_exchange):
    (tmp_path / "a.jpg").write_bytes(b"x")
    file = tmp_path / "metadata.jsonl"
    file.write_text('{"file_name": "a.jpg", "text": "old"}\n')

    def call(name, target):
        if "new a.jpg" in name.read_text():  # and not when a text is put back
            save(file, file.read_text() + "\n")

    before_exchange(call)
    written = change(tmp_path, "a.jpg")
    assert written.conflicts["a.jpg"].captions == ("old",)


def test_a_bulk_change_against_a_person_who_saves_at_random(folder):
    rng, over, saved = random.Random(0), threading.Event(), {}

    def person():
        while not over.is_set():
            name = rng.choice(NAMES)
            saved[f"{name}.jpg"] = text = f"by a person {rng.random()}"
            save(folder / f"{name}.txt", f"{text}\n")

    thread = threading.Thread(target=person)
    captions = open_captions(folder)
    seen = captions.read()
    thread.start()
    try:
        changes = {id: [f"new {id}"] for id in seen}
        captions.write(changes, expect={id: state.version for id, state in seen.items()}, backup=True)
    finally:
        over.set()
        thread.join()
    now = open_captions(folder).read()
    assert saved and {id: now[id].captions for id in saved} == {id: (text,) for id, text in saved.items()}


def killed(act):
    """Runs something in a process that kills itself in the middle."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # other threads of the tests hold nothing that is used
        pid = os.fork()
    if pid == 0:
        try:
            act()
        finally:
            os._exit(1)
    assert os.WTERMSIG(os.waitpid(pid, 0)[1]) == signal.SIGKILL


def test_leftovers_of_a_killed_change_are_moved_to_a_backup(folder, before_exchange):
    def kill(name, target):
        if target.name == "15.txt":
            os.kill(os.getpid(), signal.SIGKILL)

    before_exchange(kill)
    killed(lambda: change(folder))
    assert len(leftovers(folder)) >= 15
    with hidden_folder.locked(folder):
        pass
    assert not leftovers(folder) and not list((folder / ".calotype/writing").iterdir())
    (kept,) = (folder / ".calotype/backups").glob("*_interrupted_*")
    assert (kept / "15.txt").read_text() == "new 15.jpg\n"
    assert {path.read_text() for path in folder.glob("*.txt")} <= {f"old {n}\n" for n in NAMES} | {
        f"new {n}.jpg\n" for n in NAMES
    }


def test_what_a_living_change_writes_is_left_alone(folder):
    with hidden_folder.written_files(folder, [folder / "01.txt"]) as (name,):
        name.write_text("being written")
        with hidden_folder.locked(folder):
            pass
        assert name.read_text() == "being written"
    assert not leftovers(folder)


@pytest.mark.parametrize("content", ["[", "7", '["/etc/passwd", 5]', "[" * 100_000, ""])
def test_a_list_of_temporary_files_that_is_none_harms_nothing(folder, content):
    (folder / ".calotype/writing").mkdir(parents=True)
    (folder / ".calotype/writing/0123456789abcdef").write_text(content)
    (folder / ".calotype/writing/other").write_text("x")
    assert not change(folder, "01.jpg").conflicts
    assert [path.name for path in (folder / ".calotype/writing").iterdir()] == ["other"]


@pytest.mark.parametrize("link", [".calotype", ".calotype/backups", ".calotype/writing", ".calotype/lock"])
def test_nothing_is_written_through_a_link_in_the_hidden_folder(folder, tmp_path_factory, link):
    outside = tmp_path_factory.mktemp("outside")
    target = outside / "victim" if link.endswith("lock") else outside
    place = folder / link
    place.parent.mkdir(exist_ok=True)
    place.symlink_to(target)
    with pytest.raises(EditError, match="link"):
        change(folder, backup=True)
    assert not list(outside.iterdir())
    assert (folder / "01.txt").read_text() == "old 01\n"


def test_a_pipe_as_lock_blocks_nobody(folder):
    (folder / ".calotype").mkdir()
    os.mkfifo(folder / ".calotype/lock")
    assert not change(folder, "01.jpg").conflicts
