"""Captions changed where they are: what is read back, and that nothing else in the files has moved."""

import json
import multiprocessing
import os
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from calotype.editing import Change, open_captions
from calotype.errors import ConfigError, EditError, ManifestError
from calotype.manifest import load_manifest

WORDS = ("a cat, sitting", 'with "quotes" and\ttab', "two\nlines", "ünï 猫, {braces}")


@pytest.fixture
def put(tmp_path):
    """put("cats/a.jpg") makes an image's file, put("a.txt", "a cat") a text; gives the path."""

    def put(name, content=b"not looked into"):
        path = tmp_path / "set" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    put.root = tmp_path / "set"
    return put


def as_manifest(path, **options):
    manifest = load_manifest(path, missing_captions="empty", on_error="skip", columns={"rejected": None}, **options)
    return {row.id: tuple(text for text in row.captions if text) for row in manifest}


def as_edited(path, **options):
    return {id: state.captions for id, state in open_captions(path, **options).read().items()}


def lines(*rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


FORMS = {
    "d.jsonl": lines({"file_name": "a.jpg", "text": "one", "n": 1.50}, {"file_name": "b.jpg", "text": None}),
    "lists.jsonl": lines({"image": "a.jpg", "caption": ["one", "two"]}, {"image": "b.jpg", "caption": []}),
    "numbered.jsonl": lines({"image": "a.jpg", "caption_0": "one", "caption_1": "two"}, {"image": "b.jpg"}),
    "ids.jsonl": lines({"id": 7, "image": "a.jpg", "caption": "one"}, {"id": 8, "image": "b.jpg", "caption": "x"}),
    "twice.jsonl": lines({"image": "a.jpg", "caption": "1"}, {"image": "b.jpg"}, {"image": "a.jpg", "caption": "2"}),
    "array.json": json.dumps([{"image": "a.jpg", "caption": "one"}, {"image": "b.jpg"}], indent=2),
    "inside.json": json.dumps({"data": [{"image": "a.jpg", "caption": "one"}, {"image": "b.jpg"}]}),
    "keyed.json": json.dumps({"a.jpg": "one", "b.jpg": None, "c.jpg": ["x", "y"], "d.jpg": {"caption": "z", "k": 2}}),
    "lines.json": lines({"image": "a.jpg", "caption": "one"}, {"image": "b.jpg", "caption": "x"}),
    "d.csv": 'image,artist,caption\r\na.jpg,"Me, too",one, two\r\n\r\nb.jpg,you,"x"\r\nbad line\r\n',
    "wide.csv": "caption_0,file_name,caption_1\none,a.jpg,two\n,b.jpg,",
    "none.csv": "a.jpg,one\nb.jpg,",
    "d.tsv": 'a.jpg\tone, "two"\nb.jpg\tx\ty\n',
    "headed.tsv": "path\ttext\tseen\na.jpg\tone\t1\nb.jpg\t\t2\n",
}


@pytest.fixture(params=FORMS)
def form(request, put):
    return put(request.param, FORMS[request.param])


def test_every_form_reads_as_the_manifest_does(form):
    assert as_edited(form) == as_manifest(form)


@pytest.mark.parametrize("captions", [[WORDS[0]], [WORDS[0], WORDS[3]], [*WORDS[:2], *WORDS[3:]], []], ids=len)
def test_every_form_holds_new_captions(form, captions):
    before = as_edited(form)
    first, second, *_ = before
    written = open_captions(form).write({second: captions})
    assert not written.conflicts and written.states[second].captions == tuple(captions)
    assert as_edited(form) == as_manifest(form) == {**before, second: tuple(captions)}
    open_captions(form).write({first: captions, second: [WORDS[0]]})
    assert as_edited(form) == as_manifest(form) == {**before, first: tuple(captions), second: (WORDS[0],)}


def test_every_form_but_tsv_holds_line_breaks(form):
    name = next(iter(as_edited(form)))
    data = form.read_bytes()
    if form.suffix == ".tsv":
        with pytest.raises(EditError, match=r"this TSV file can't hold 'two\\nlines'; `calotype convert`"):
            open_captions(form).write({name: [WORDS[2]]})
        assert form.read_bytes() == data
    else:
        open_captions(form).write({name: [WORDS[2]]})
        assert as_manifest(form)[name] == (WORDS[2],)


def test_every_form_keeps_a_rejected_row_and_the_manifest_leaves_it_out(form):
    before = as_edited(form)
    first, *others = before
    captions = open_captions(form)
    assert captions.reject([first]).states[first].rejected
    manifest = load_manifest(form, missing_captions="empty", on_error="skip")
    assert list(manifest.ids.to_pylist()) == others
    assert [(entry.kind, entry.id) for entry in manifest.ledger if entry.kind == "rejected"] == [("rejected", first)]
    assert as_edited(form) == before  # nothing is deleted
    every = load_manifest(form, missing_captions="empty", on_error="skip", keep_rejected=True)
    assert every.ids.to_pylist() == list(before)
    assert list(captions.read([first, "nowhere"])) == [first]
    assert not captions.reject([first], rejected=False).states[first].rejected
    assert as_edited(form) == as_manifest(form) == before
    assert load_manifest(form, missing_captions="empty", on_error="skip").ids.to_pylist() == list(before)


def test_what_is_not_asked_for_stays_byte_for_byte(put):
    rows = ['{"file_name":"a.jpg","text":"one","n":1.50,"n2":12345678901234567890}', "oops", "", '{"text": "\\u00e9",']
    rows.append('{"text": "x", "z": [1, {"k": null}], "file_name": "b.jpg", "a": true}')
    file = put("d.jsonl", "\ufeff" + "\r\n".join(rows))
    open_captions(file).write({"b.jpg": ["é"]})
    *same, changed = file.read_bytes().decode().split("\r\n")
    assert same == ["\ufeff" + rows[0], *rows[1:-1]]
    assert changed == '{"text": "é", "z": [1, {"k": null}], "file_name": "b.jpg", "a": true}'


def test_one_list_makes_lists_of_all(put):
    file = put("d.jsonl", lines(*({"file_name": f"{name}.jpg", "text": name} for name in "abc")))
    open_captions(file).write({"b.jpg": ["x", "y"]})
    assert [json.loads(line)["text"] for line in file.read_text().splitlines()] == [["a"], ["x", "y"], ["c"]]


def test_a_csv_gets_a_column_and_keeps_its_lines(put):
    file = put("d.csv", 'image,caption\r\na.jpg,"one, two"\r\nb.jpg,a "b" c, d\r\n')
    open_captions(file).reject(["b.jpg"])
    assert file.read_bytes().decode() == ('image,rejected,caption\r\na.jpg,,"one, two"\r\nb.jpg,true,a "b" c, d\r\n')


@pytest.fixture
def folder(put):
    """A folder with everything that a folder can have."""
    for name in ("a.jpg", "b.png", "c.jpg", "c.png", "sub/d.jpg", "sub/e.jpg", "3_dog/f.jpg", "g.jpg", "bare.jpg"):
        put(name)
    put("a.txt", "a cat\n"), put("b.txt", "tags, of b"), put("b.caption", "A sentence."), put("c.txt", "shared")
    put("metadata.jsonl", lines({"file_name": "g.jpg", "text": "from the metadata"}, {"file_name": "a.jpg", "k": 1}))
    put("g.txt", "not read"), put("sub/d.txt", "below"), put("gone.txt", "without an image")
    return put.root


def test_a_folder_reads_as_the_manifest_does(folder):
    found = as_edited(folder)
    assert found == as_manifest(folder)
    assert found["b.png"] == ("tags, of b", "A sentence.") and found["3_dog/f.jpg"] == ("dog",)


def test_an_empty_file_in_kohyas_folder_is_an_empty_caption(put):
    put("10_sks dog/a.jpg"), put("10_sks dog/a.txt", "\n"), put("10_sks dog/b.jpg")
    assert as_edited(put.root) == as_manifest(put.root) == {"10_sks dog/a.jpg": (), "10_sks dog/b.jpg": ("sks dog",)}


@pytest.mark.parametrize("lines", ["one", "many"])
def test_every_image_of_a_folder_can_be_changed_alone(folder, lines):
    for captions in ([WORDS[2]], ["one", "two", "three"], ["x"], []):
        before = as_edited(folder, caption_lines=lines)
        for name in before:
            written = open_captions(folder, caption_lines=lines).write({name: captions})
            usual = ("dog",) if name.startswith("3_dog") and not captions else tuple(captions)
            before = {**before, name: usual}
            assert as_edited(folder, caption_lines=lines) == as_manifest(folder, caption_lines=lines)
            assert as_edited(folder, caption_lines=lines) == before
            assert not written.conflicts


def test_captions_stay_where_they_are(put):
    put("a.jpg"), put("b.jpg"), put("c.jpg"), put("c.png")
    sidecar, shared = put("a.txt", "one"), put("c.txt", "both")
    open_captions(put.root).write({"a.jpg": ["two"], "b.jpg": ["new"], "c.png": ["own"]})
    assert sidecar.read_text() == "two\n" and (put.root / "b.txt").read_text() == "new\n"
    assert shared.read_text() == "both" and (put.root / "c.png.txt").read_text() == "own\n"
    assert not (put.root / "metadata.jsonl").exists()


def test_without_any_captions_metadata_is_made_that_other_libraries_read(put, skimage_data):
    datasets = pytest.importorskip("datasets")
    for name in ("rocket.jpg", "sub/chelsea.png"):
        put(name, (skimage_data / os.path.basename(name)).read_bytes())
    captions = open_captions(put.root)
    captions.write({"rocket.jpg": ["one", "two"], "sub/chelsea.png": ["a cat"]}, sidecars=True, backup=True)
    captions.write({"rocket.jpg": ["1", "2"]}, backup=True)
    assert (put.root / "rocket.txt").read_text() == "1\n2\n" and (put.root / "sub/chelsea.txt").read_text() == "a cat\n"
    loaded = datasets.load_dataset("imagefolder", data_dir=str(put.root), split="train", cache_dir=str(put.root / ".c"))
    assert sorted(loaded["text"]) == [["1", "2"], ["a cat"]]
    assert sorted(image.size for image in loaded["image"]) == [(451, 300), (640, 427)]


def test_a_copy_beside_is_kept_equal_and_another_text_is_unchanged(put):
    put("a.jpg"), put("b.jpg"), put("a.txt", "one"), put("b.txt", "else")
    put("metadata.jsonl", lines({"file_name": "a.jpg", "text": "one"}, {"file_name": "b.jpg", "text": "two"}))
    open_captions(put.root).write({"a.jpg": ["1"], "b.jpg": ["2"]})
    assert (put.root / "a.txt").read_text() == "1\n" and (put.root / "b.txt").read_text() == "else"
    assert as_edited(put.root) == {"a.jpg": ("1",), "b.jpg": ("2",)}


def test_a_change_by_another_program_is_a_conflict_and_not_overwritten(folder):
    captions = open_captions(folder)
    seen = {id: state.version for id, state in captions.read().items()}
    (folder / "a.txt").write_text("theirs")
    (folder / "bare.jpg").unlink()
    written = captions.write({"a.jpg": ["mine"], "b.png": ["mine"], "bare.jpg": ["mine"]}, expect=seen)
    assert written.conflicts["a.jpg"].captions == ("theirs",) and written.conflicts["bare.jpg"] is None
    assert list(written.states) == ["b.png"] and (folder / "a.txt").read_text() == "theirs"
    again = captions.write({"a.jpg": ["mine"]}, expect={"a.jpg": written.conflicts["a.jpg"].version})
    assert again.states["a.jpg"].captions == ("mine",) and not again.conflicts
    assert captions.read()["b.png"].version == written.states["b.png"].version != seen["b.png"]


def test_versions_know_a_flag_and_where_one_caption_ends(put):
    put("a.jpg"), put("b.jpg"), put("c.jpg")
    put(
        "metadata.jsonl",
        lines({"file_name": "a.jpg", "text": ["ab", "c"]}, {"file_name": "b.jpg", "text": ["a", "bc"]}),
    )
    captions = open_captions(put.root)
    states = captions.read()
    assert len({state.version for state in states.values()}) == 3
    assert captions.reject(["a.jpg"], expect={"a.jpg": states["a.jpg"].version}).states["a.jpg"].rejected
    assert "a.jpg" in captions.write({"a.jpg": ["x"]}, expect={"a.jpg": states["a.jpg"].version}).conflicts


def test_a_backup_holds_what_will_change_as_it_was(folder):
    was = (folder / "a.txt").read_bytes(), (folder / "metadata.jsonl").read_bytes()
    written = open_captions(folder).write({"a.jpg": ["x"], "g.jpg": ["y"], "sub/e.jpg": ["z"]}, backup=True)
    assert written.backup.parent == folder / ".calotype" / "backups"
    kept = {path.relative_to(written.backup).as_posix(): path for path in written.backup.rglob("*") if path.is_file()}
    assert sorted(kept) == ["a.txt", "metadata.jsonl"]
    assert (kept["a.txt"].read_bytes(), kept["metadata.jsonl"].read_bytes()) == was
    assert ".calotype" not in " ".join(as_edited(folder))


def test_a_rejected_image_of_a_folder_is_marked_in_the_metadata(put):
    put("a.jpg"), put("b.jpg"), put("a.txt", "one"), put("b.txt", "two")
    captions = open_captions(put.root)
    captions.reject(["a.jpg"])
    assert json.loads((put.root / "metadata.jsonl").read_text()) == {"file_name": "a.jpg", "rejected": True}
    assert load_manifest(put.root).ids.to_pylist() == ["b.jpg"]
    assert captions.write({"a.jpg": Change(rejected=False, captions=["new"])}).states["a.jpg"].captions == ("new",)
    assert (put.root / "a.txt").read_text() == "new\n"
    assert {row.id: row.captions for row in load_manifest(put.root)} == {"a.jpg": ("new",), "b.jpg": ("two",)}


def test_a_link_stays_a_link_and_rights_stay(put, tmp_path):
    real = tmp_path / "elsewhere.jsonl"
    real.write_text(lines({"image": "/x/a.jpg", "caption": "one"}))
    real.chmod(0o640)
    put.root.mkdir()
    link = put.root / "d.jsonl"
    link.symlink_to(real)
    open_captions(link).write({"/x/a.jpg": ["two"]}, backup=True)
    assert link.is_symlink() and real.stat().st_mode & 0o777 == 0o640 and "two" in real.read_text()


def test_a_file_that_is_not_text_is_named_and_left(put):
    put("a.jpg"), put("b.jpg"), put("b.txt", "fine")
    odd = put("a.txt", "café".encode("latin-1"))
    captions = open_captions(put.root)
    states = captions.read()
    assert "a.txt: not UTF-8 text (byte 3)" in states["a.jpg"].problem and states["b.jpg"].problem is None
    with pytest.raises(EditError, match="not UTF-8 text"):
        captions.write({"b.jpg": ["x"], "a.jpg": ["x"]})
    assert odd.read_bytes() == "café".encode("latin-1") and (put.root / "b.txt").read_text() == "fine"


def test_forms_that_can_only_be_read_name_the_way_out(put):
    put("a.jpg")
    file = put.root / "d.parquet"
    pq.write_table(pa.table({"image": ["a.jpg"], "caption": ["one"]}), file)
    with pytest.raises(EditError, match=r"in parquet can't be changed in place; `calotype convert .*d.parquet"):
        open_captions(file)
    file.rename(put.root / "metadata.parquet")
    with pytest.raises(EditError, match="calotype convert"):
        open_captions(put.root)
    with pytest.raises(EditError, match="hub dataset"):
        open_captions("someone/something")
    with pytest.raises(ManifestError, match="no such file"):
        open_captions(put.root / "nothing")


def test_odd_texts_are_errors_before_anything_is_written(put):
    put("a.jpg")
    captions = open_captions(put.root)
    with pytest.raises(EditError, match=r"surrogate|half a character"):
        captions.write({"a.jpg": ["\ud800"]})
    with pytest.raises(TypeError, match="a list of texts"):
        captions.write({"a.jpg": "a cat"})
    assert sorted(path.name for path in put.root.iterdir() if not path.name.startswith(".")) == ["a.jpg"]


def _write_many(folder, who):
    captions = open_captions(folder)
    for number in range(20):
        captions.write({f"{who}{number}.jpg": [f"{who} {number}"]})


def test_processes_that_write_at_once_lose_nothing(put):
    for who in "ab":
        for number in range(20):
            put(f"{who}{number}.jpg")
    context = multiprocessing.get_context("fork" if "fork" in multiprocessing.get_all_start_methods() else "spawn")
    writers = [context.Process(target=_write_many, args=(put.root, who)) for who in "ab"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    found = as_edited(put.root)
    assert len(found) == 40 and all(captions == (f"{id[0]} {id[1:-4]}",) for id, captions in found.items())


def test_a_full_disk_leaves_the_file_as_it_was(folder, monkeypatch):
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(EditError, match="No space left on device"):
        open_captions(folder).write({"a.jpg": ["x"]})
    monkeypatch.undo()
    shutil.rmtree(folder / ".calotype")
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_a_caption_file_in_another_case_is_changed_and_none_is_put_beside_it(put):
    put("IMG_1.JPG"), put("IMG_1.TXT", "one"), put("b.jpg"), put("B.Jpg.txt", "two")
    captions = open_captions(put.root)
    assert as_edited(put.root) == as_manifest(put.root) == {"IMG_1.JPG": ("one",), "b.jpg": ("two",)}
    captions.write({"IMG_1.JPG": ["new"], "b.jpg": ["newer"]})
    assert sorted(file.name for file in put.root.iterdir() if not file.name.startswith(".")) == [
        "B.Jpg.txt", "IMG_1.JPG", "IMG_1.TXT", "b.jpg",
    ]  # fmt: skip
    assert as_edited(put.root) == as_manifest(put.root) == {"IMG_1.JPG": ("new",), "b.jpg": ("newer",)}


def test_captions_of_a_json_file_are_read_and_a_text_has_priority(put):
    put("a.jpg"), put("a.json", '{"caption": "from json", "n": 1}'), put("b.jpg"), put("b.JSON", '{"tags": ["x", "y"]}')
    captions = open_captions(put.root)
    assert as_edited(put.root) == as_manifest(put.root) == {"a.jpg": ("from json",), "b.jpg": ("x, y",)}
    captions.write({"a.jpg": ["by hand"]})
    assert as_edited(put.root) == as_manifest(put.root) == {"a.jpg": ("by hand",), "b.jpg": ("x, y",)}
    assert (put.root / "a.txt").read_text() == "by hand\n"
    assert (put.root / "a.json").read_text() == '{"caption": "from json", "n": 1}'
    with pytest.raises(EditError, match=r"b\.JSON: the caption is in this file, which is not changed; remove it there"):
        captions.write({"b.jpg": []})


def test_new_captions_go_to_files_of_the_suffix_that_is_read(put):
    put("a.jpg"), put("a.tags", "x"), put("b.jpg"), put("c.jpg"), put("c.json", '{"caption": "not read"}')
    options = {"caption_suffix": ".tags"}
    open_captions(put.root, **options).write({"b.jpg": ["y"]})
    assert as_edited(put.root, **options) == as_manifest(put.root, **options)
    assert (put.root / "b.tags").read_text() == "y\n" and not (put.root / "b.txt").exists()


def test_metadata_that_names_an_image_in_another_unicode_form_is_changed(put):
    put("Cafe\u0301.jpg"), put("metadata.jsonl", lines({"file_name": "Caf\u00e9.jpg", "text": "one"}))
    (id,) = as_manifest(put.root)
    assert as_edited(put.root) == {id: ("one",)}
    open_captions(put.root).write({id: ["two"]})
    assert as_edited(put.root) == as_manifest(put.root) == {id: ("two",)}
    assert not list(put.root.glob("*.txt")) and len((put.root / "metadata.jsonl").read_text().splitlines()) == 1


def test_an_excluded_image_that_the_metadata_lists_is_no_row(put):
    for name in "ab":
        put(f"{name}.jpg")
    put("metadata.jsonl", lines({"file_name": "a.jpg", "text": "one"}, {"file_name": "b.jpg", "text": "two"}))
    options = {"exclude": "b.jpg"}
    assert as_edited(put.root, **options) == as_manifest(put.root, **options) == {"a.jpg": ("one",)}


@pytest.mark.parametrize(
    ("option", "message"),
    [({"caption_lines": "all"}, "caption_lines: found 'all'"), ({"root": "/none"}, "root: there is no folder /none")],
)
def test_options_are_checked_as_those_of_a_manifest(put, option, message):
    path = put("d.jsonl", lines({"image": "a.jpg", "caption": "one"}))
    for load in (open_captions, load_manifest):
        with pytest.raises(ConfigError, match=message):
            load(path, **option)
