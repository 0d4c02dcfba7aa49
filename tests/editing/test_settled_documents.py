"""JSON lines that were written are not read again, and are the same in memory as on the disk."""

import json

import pytest

from calotype.editing import Change, open_captions
from calotype.editing import captions as module


@pytest.fixture(params=["folder", "file"])
def path(request, tmp_path):
    for name in ("a.jpg", "b.jpg", "c.jpg", "d.jpg"):
        (tmp_path / name).write_bytes(b"")
    rows = [
        {"file_name": "a.jpg", "text": "a", "note": 1},
        {"file_name": "b.jpg", "text": None},
        {"file_name": "c.jpg", "text": "c"},
    ]
    file = tmp_path / "metadata.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows) + "broken\n")
    return tmp_path if request.param == "folder" else file


@pytest.fixture
def reads(monkeypatch):
    found, real = [], module.open_document
    monkeypatch.setattr(module, "open_document", lambda file, reading: found.append(file) or real(file, reading))
    return found


CHANGES = [
    {"a.jpg": ["new"]},
    {"b.jpg": ["its first"]},
    {"a.jpg": Change(rejected=True), "c.jpg": ["x\ny", "second"]},
    {"a.jpg": Change(captions=[], rejected=False)},
    {"a.jpg": ["ä “quoted”"], "b.jpg": Change(rejected=True)},
]


def test_what_was_written_is_not_read_again(path, reads):
    captions = open_captions(path)
    captions.write({"a.jpg": ["first"]})
    before = len(reads)
    for change in CHANGES:
        written = captions.write(change, expect={id: state.version for id, state in captions.read(change).items()})
        assert written.states.keys() == change.keys()
        known = captions.read()
        read_again = len(reads)
        assert known == open_captions(path).read()
        del reads[read_again:]
    assert len(reads) == before


def test_another_program_in_between(path):
    captions = open_captions(path)
    version = captions.write({"a.jpg": ["mine"]}).states["a.jpg"].version
    file = path if path.is_file() else path / "metadata.jsonl"
    file.write_text(file.read_text().replace("mine", "them"))  # of the same length
    written = captions.write({"a.jpg": ["mine again"]}, expect={"a.jpg": version})
    assert written.conflicts["a.jpg"].captions == ("them",)
    assert captions.write({"c.jpg": ["new"]}).states["c.jpg"].captions == ("new",)
    assert "them" in file.read_text()


def test_another_program_that_leaves_no_trace_in_the_state(path, monkeypatch):
    captions = open_captions(path)
    captions.write({"a.jpg": ["mine"]})
    file = path if path.is_file() else path / "metadata.jsonl"
    state = module.state_of(file.stat())
    file.write_text(file.read_text().replace("mine", "them"))
    real = module.state_of
    same = [state] * 3  # as within one tick of the clock; later the files are looked at again
    monkeypatch.setattr(module, "state_of", lambda info: same.pop() if same else real(info))
    captions.write({"c.jpg": ["new"]})
    assert captions.read()["a.jpg"].captions == ("them",)
    assert open_captions(path).read()["c.jpg"].captions == ("new",)


def test_a_row_that_is_added_is_read(path):
    if path.is_file():
        pytest.skip("a data file gets no rows here")
    captions = open_captions(path)
    captions.write({"a.jpg": ["x"]})
    captions.write({"d.jpg": ["new"]})
    captions.write({"d.jpg": Change(rejected=True)})
    assert captions.read() == open_captions(path).read()
    assert captions.read()["d.jpg"].rejected
