"""Folders of images: sidecars, metadata files, kohya repeats, and what is passed over."""

import csv
import json
import os
import time

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from calotype.errors import ConfigError, ManifestError, MissingCaptionError
from calotype.manifest import load_manifest


def captions(manifest):
    return {row.id: row.captions for row in manifest}


def test_sidecars_give_captions_and_ids_are_relative(put, read):
    photo = put("cats/a.jpg")
    put("cats/a.txt", "a cat, sitting\n")
    put("b.PNG")
    put("b.caption", "two")
    manifest = load_manifest(put.root)
    assert captions(manifest) == {"b.PNG": ("two",), "cats/a.jpg": ("a cat, sitting",)}
    assert manifest[1].image.path == str(photo)
    assert read(manifest[1].image) == photo.read_bytes()
    assert manifest[1].image.name == "cats/a.jpg"


def test_not_recursive(put):
    put("a.jpg"), put("a.txt", "x"), put("below/b.jpg"), put("below/b.txt", "y")
    assert list(captions(load_manifest(put.root, recursive=False))) == ["a.jpg"]
    assert list(captions(load_manifest(put.root))) == ["a.jpg", "below/b.jpg"]


def test_jpg_and_png_of_one_stem_are_two_samples_with_their_own_or_the_shared_caption(put):
    put("a.jpg"), put("a.png"), put("a.txt", "shared"), put("a.png.txt", "of the png")
    assert captions(load_manifest(put.root)) == {"a.jpg": ("shared",), "a.png": ("of the png",)}


def test_a_text_and_a_caption_file_are_two_captions(put):
    put("a.jpg"), put("a.txt", "cat, tree"), put("a.caption", "A cat in a tree.")
    assert captions(load_manifest(put.root)) == {"a.jpg": ("cat, tree", "A cat in a tree.")}


@pytest.mark.parametrize(
    ("content", "one", "many"),
    [
        (b"a cat\n", ("a cat",), ("a cat",)),
        (b"  two  spaces ,kept \r\n", ("  two  spaces ,kept ",), ("  two  spaces ,kept ",)),
        (b"first\nsecond\n\nthird", ("first\nsecond\n\nthird",), ("first", "second", "third")),
        (b"\xef\xbb\xbfwith a mark", ("with a mark",), ("with a mark",)),
        ("Notepad's 猫".encode("utf-16"), ("Notepad's 猫",), ("Notepad's 猫",)),
        ("a\u2028b\x85c".encode(), ("a\u2028b\x85c",), ("a\u2028b\x85c",)),
    ],
)
def test_captions_are_kept_byte_for_byte(put, content, one, many):
    put("a.jpg"), put("a.txt", content)
    assert load_manifest(put.root)[0].captions == one
    assert load_manifest(put.root, caption_lines="many")[0].captions == many


def test_what_is_no_image_is_passed_over(put):
    put("a.jpg"), put("a.txt", "x")
    for name in (".hidden.jpg", ".git/b.jpg", "__MACOSX/c.jpg", "Thumbs.db", ".DS_Store", "._a.jpg", "notes.pdf"):
        put(name)
    assert list(captions(load_manifest(put.root))) == ["a.jpg"]


def test_a_caption_file_without_an_image_is_listed(put):
    put("a.jpg"), put("a.txt", "x"), put("b.txt", "no image of mine")
    manifest = load_manifest(put.root)
    assert [(entry.kind, entry.id) for entry in manifest.ledger] == [("no_picture", str(put.root / "b.txt"))]


def test_link_loops_end_and_linked_folders_are_read_once(put):
    put("sub/a.jpg"), put("sub/a.txt", "x")
    os.symlink(put.root, put.root / "sub" / "loop")
    assert list(captions(load_manifest(put.root))) == ["sub/a.jpg"]


def test_a_broken_link_does_not_vanish(put):
    put("a.txt", "x")
    os.symlink(put.root / "gone.jpg", put.root / "a.jpg")
    assert captions(load_manifest(put.root)) == {"a.jpg": ("x",)}, "reading it is what fails, by its name"


def test_a_name_that_is_not_utf8_is_named(put):
    put("a.jpg"), put("a.txt", "x")
    with open(os.fsencode(put.root) + b"/\xff.jpg", "wb") as file:
        file.write(b"x")
    with pytest.raises(ManifestError, match="not UTF-8"):
        load_manifest(put.root)
    manifest = load_manifest(put.root, on_error="skip")
    assert (len(manifest), manifest.ledger.counts()) == (1, {"bad_row": 1})


def test_a_caption_that_is_not_utf8_is_named(put):
    put("a.jpg"), put("a.txt", b"caf\xe9")
    with pytest.raises(ManifestError, match=r"a\.txt: not UTF-8 text \(byte 3\)"):
        load_manifest(put.root)


def test_missing_captions_error_names_images_and_ways_out(put):
    for number in range(8):
        put(f"{number}.jpg")
    put("0.txt", "one has a caption"), put("1.txt", " \n")
    with pytest.raises(MissingCaptionError) as caught:
        load_manifest(put.root)
    text = str(caught.value)
    assert "7 of 8 images have no caption" in text
    assert all(f"'{number}.jpg'" in text for number in range(1, 6)) and "'6.jpg'" not in text and "2 more" in text
    assert all(word in text for word in ("a.txt", "'skip'", "'empty'", "trigger"))


def test_a_data_file_among_images_is_pointed_at(put):
    put("a.jpg"), put("data.tsv", "a.jpg\tx\n")
    with pytest.raises(MissingCaptionError, match=r"not used: data\.tsv: .* pass such a file as path"):
        load_manifest(put.root)
    assert captions(load_manifest(put.root / "data.tsv")) == {"a.jpg": ("x",)}


def test_missing_captions_skip_empty_and_text(put):
    put("a.jpg"), put("b.jpg"), put("c.jpg"), put("b.txt", "has one")
    skipped = load_manifest(put.root, missing_captions="skip")
    assert captions(skipped) == {"b.jpg": ("has one",)}
    assert [(entry.kind, entry.id) for entry in skipped.ledger] == [("no_caption", "a.jpg"), ("no_caption", "c.jpg")]
    empty = load_manifest(put.root, missing_captions="empty")
    assert captions(empty) == {"a.jpg": ("",), "b.jpg": ("has one",), "c.jpg": ("",)}
    assert empty.describe()["without_caption"] == 2
    text = load_manifest(put.root, missing_captions="a photo")
    assert captions(text) == {"a.jpg": ("a photo",), "b.jpg": ("has one",), "c.jpg": ("a photo",)}


def test_kohya_repeats_and_class_names(put):
    put("10_sks dog/a.jpg"), put("10_sks dog/a.txt", "sks dog on a lawn"), put("10_sks dog/b.jpg")
    put("1_dog/c.jpg"), put("2024_holiday/d.jpg"), put("2024_holiday/d.txt", "d"), put("01_x/e.jpg")
    put("01_x/e.txt", "e")
    manifest = load_manifest(put.root)
    assert captions(manifest) == {
        "01_x/e.jpg": ("e",),
        "10_sks dog/a.jpg": ("sks dog on a lawn",),
        "10_sks dog/b.jpg": ("sks dog",),
        "1_dog/c.jpg": ("dog",),
        "2024_holiday/d.jpg": ("d",),
    }
    assert manifest.weights().tolist() == [1, 10, 10, 1, 1]
    assert manifest[1].weight == 10
    notes = " ".join(manifest.describe()["notes"])
    assert "10_sks dog: kohya repeat folder, each image is shown 10 times" in notes and "2 image(s)" in notes


def test_an_empty_caption_file_in_kohyas_folder_is_an_empty_caption(put):
    put("10_sks dog/a.jpg"), put("10_sks dog/a.txt", "\n"), put("10_sks dog/b.jpg")
    manifest = load_manifest(put.root, missing_captions="empty")
    assert captions(manifest) == {"10_sks dog/a.jpg": ("",), "10_sks dog/b.jpg": ("sks dog",)}


def test_kohya_repeats_hold_for_images_of_a_metadata_file(put):
    put("5_cat/a.jpg"), put("5_cat/b.jpg"), put("5_cat/c.jpg"), put("5_cat/d.jpg"), put("other/e.jpg")
    put("other/e.txt", "e")
    rows = [
        {"file_name": "5_cat/a.jpg", "text": "x", "id": "a", "weight": None},
        {"file_name": "5_cat/b.jpg", "text": "y", "id": "b", "weight": 2.5},
        {"file_name": "5_cat/c.jpg", "text": None, "id": "c", "weight": None},
    ]
    write_metadata(put, "jsonl", rows)
    assert [(row.id, row.captions, row.weight) for row in load_manifest(put.root)] == [
        ("a", ("x",), 5.0),
        ("b", ("y",), 2.5),
        ("c", ("cat",), 5.0),
        ("5_cat/d.jpg", ("cat",), 5.0),
        ("other/e.jpg", ("e",), 1.0),
    ]


def write_metadata(put, kind, rows):
    if kind == "jsonl":
        put("metadata.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    elif kind == "csv":
        with put("metadata.csv", "").open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
    else:
        pq.write_table(pa.Table.from_pylist(rows), put("metadata.parquet", ""))


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_imagefolder_metadata(put, kind):
    put("a.jpg"), put("sub/b.jpg"), put("c.jpg"), put("c.txt", "from its sidecar"), put("a.txt", "not this")
    rows = [
        {"file_name": "a.jpg", "text": "an a", "artist": "x"},
        {"file_name": "sub/b.jpg", "text": 'a, "b"', "artist": "y"},
    ]
    write_metadata(put, kind, rows)
    manifest = load_manifest(put.root)
    assert captions(manifest) == {"a.jpg": ("an a",), "sub/b.jpg": ('a, "b"',), "c.jpg": ("from its sidecar",)}
    assert {row.id: row.extra for row in manifest} == {
        "a.jpg": {"artist": "x"},
        "sub/b.jpg": {"artist": "y"},
        "c.jpg": {"artist": None},
    }


def test_metadata_in_sub_folders_and_an_image_that_is_not_there(put):
    put("train/a.jpg"), put("train/metadata.jsonl", '{"file_name": "a.jpg", "text": "x"}\n')
    put("test/a.jpg"), put("test/metadata.csv", "file_name,text\na.jpg,y\ngone.jpg,z\n")
    with pytest.raises(ManifestError, match=r"metadata\.csv:3: the image 'test/gone\.jpg' is not there"):
        load_manifest(put.root, split="all")
    manifest = load_manifest(put.root, split="all", on_error="skip")
    assert captions(manifest) == {"train/a.jpg": ("x",), "test/a.jpg": ("y",)}
    assert manifest.ledger.counts() == {"bad_row": 1}


def test_metadata_without_a_caption_for_an_image_leaves_it_to_the_sidecar(put):
    put("a.jpg"), put("a.txt", "beside it")
    put("metadata.jsonl", '{"file_name": "a.jpg", "text": null, "artist": "x"}\n')
    manifest = load_manifest(put.root)
    assert [(row.captions, row.extra) for row in manifest] == [(("beside it",), {"artist": "x"})]


def test_metadata_with_only_numbers_and_sidecars_for_text(put):
    put("a.jpg"), put("a.txt", "beside it")
    put("metadata.csv", "file_name,width,height\na.jpg,64,48\n")
    manifest = load_manifest(put.root)
    assert [(row.captions, row.width, row.height) for row in manifest] == [(("beside it",), 64, 48)]


def test_metadata_with_ids_of_its_own(put):
    put("a.jpg"), put("b.jpg"), put("b.txt", "beside it")
    put("metadata.jsonl", '{"file_name": "a.jpg", "text": "x", "id": "one"}\n{"file_name": "b.jpg", "id": "two"}\n')
    assert captions(load_manifest(put.root)) == {"one": ("x",), "two": ("beside it",)}


def test_split_folders(put):
    for name in ("train/a", "train/deep/b", "val/c", "test/d"):
        put(f"{name}.jpg"), put(f"{name}.txt", name)
    assert list(captions(load_manifest(put.root, split="train"))) == ["train/a.jpg", "train/deep/b.jpg"]
    assert list(captions(load_manifest(put.root, split="validation"))) == ["val/c.jpg"]
    assert len(load_manifest(put.root, split="all")) == 4
    with pytest.raises(ManifestError, match="no split 'extra'"):
        load_manifest(put.root, split="extra")


def test_split_train_of_a_folder_without_splits_is_all_of_it(put):
    put("a.jpg"), put("a.txt", "x")
    assert len(load_manifest(put.root, split="train")) == 1
    with pytest.raises(ManifestError, match=r"validation=0\.05"):
        load_manifest(put.root, split="test")


def test_empty_and_wrong_folders_are_errors(put, tmp_path):
    put.root.mkdir()
    with pytest.raises(ManifestError, match="no images found"):
        load_manifest(put.root)
    put("deep/a.jpg")
    with pytest.raises(ManifestError, match="recursive=False"):
        load_manifest(put.root, recursive=False)
    with pytest.raises(ManifestError, match=r"did you mean '.*/set'"):
        load_manifest(tmp_path / "sett")
    with pytest.raises(ConfigError, match="root"):
        load_manifest(put.root, root=tmp_path)


def test_globs_lists_and_single_images(put):
    put("x/a.jpg"), put("x/a.txt", "1"), put("y/b.jpg"), put("y/b.txt", "2"), put("y/c.png"), put("y/c.txt", "3")
    assert captions(load_manifest([put.root / "x", put.root / "y"])) == {
        "x/a.jpg": ("1",),
        "y/b.jpg": ("2",),
        "y/c.png": ("3",),
    }
    assert captions(load_manifest(f"{put.root}/*/*.jpg")) == {"x/a.jpg": ("1",), "y/b.jpg": ("2",)}
    assert captions(load_manifest(f"{put.root}/y/*")) == {"b.jpg": ("2",), "c.png": ("3",)}
    assert captions(load_manifest(f"{put.root}/**/*.png")) == {"c.png": ("3",)}
    with pytest.raises(ManifestError, match="no file matches"):
        load_manifest(f"{put.root}/*.gif")


def test_moving_the_folder_changes_no_id(put, tmp_path):
    put("cats/a.jpg"), put("cats/a.txt", "x")
    before = load_manifest(put.root)
    os.rename(put.root, tmp_path / "moved")
    after = load_manifest(tmp_path / "moved")
    assert list(captions(before)) == list(captions(after)) == ["cats/a.jpg"]
    assert after[0].image.path == str(tmp_path / "moved" / "cats" / "a.jpg")


def test_many_files_scan_fast(tmp_path):
    for number in range(20_000):
        (tmp_path / f"{number:06d}.jpg").touch()
    start = time.process_time()  # its own: what else the machine does is not in it
    manifest = load_manifest(tmp_path, missing_captions="empty")
    assert len(manifest) == 20_000
    assert time.process_time() - start < 5  # 0.2 s on an idle machine; a stat or Path a file would take much longer
