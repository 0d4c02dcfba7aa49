"""A column `split` in a data file or beside images: rows of other splits are not trained on in silence."""

import json

import pytest

from calotype import load_manifest
from calotype.errors import ConfigError, ManifestError, MissingCaptionError

ROWS = [("0.jpg", "a", "train"), ("1.jpg", "b", "Test"), ("2.jpg", "c", "training"), ("3.jpg", "d", "val")]


def written(folder, rows, name="split", form="csv"):
    if form == "csv":
        file = folder / "d.csv"
        file.write_text(f"image,text,{name}\n" + "".join(",".join(row) + "\n" for row in rows))
    else:
        file = folder / "d.json"
        file.write_text(json.dumps([{"image": image, "text": text, name: split} for image, text, split in rows]))
    return file


@pytest.mark.parametrize("form", ["csv", "json"])
@pytest.mark.parametrize("name", ["split", "Subset", "phase"])
def test_rows_of_the_train_split_are_read_and_reported(tmp_path, form, name):
    manifest = load_manifest(written(tmp_path, ROWS, name, form))
    assert manifest.ids.to_pylist() == ["0.jpg", "2.jpg"]
    assert manifest.describe()["notes"][-1] == (
        f"split 'train' was read of train (2 rows), test (1 rows), validation (1 rows) by the column {name!r}; "
        "split='all' reads all"
    )


def test_other_splits_are_read_where_asked_for(tmp_path):
    file = written(tmp_path, ROWS)
    assert load_manifest(file, split="validation").ids.to_pylist() == ["3.jpg"]
    assert load_manifest(file, split="eval").ids.to_pylist() == ["1.jpg"]
    assert load_manifest(file, split="all").ids.to_pylist() == ["0.jpg", "1.jpg", "2.jpg", "3.jpg"]
    with pytest.raises(ManifestError, match=r"the column 'split' has the splits train \(1 rows\); choose one"):
        load_manifest(written(tmp_path, ROWS[:1]), split="test")


def test_a_row_without_a_split_is_named(tmp_path):
    manifest = load_manifest(written(tmp_path, [*ROWS[:2], ("4.jpg", "e", "")]))
    assert manifest.ids.to_pylist() == ["0.jpg"]
    assert [(entry.kind, entry.id) for entry in manifest.ledger] == [("no_split", f"{tmp_path / 'd.csv'}:4")]


def test_a_bad_row_is_named_by_its_line_in_the_file(tmp_path):
    file = written(tmp_path, [ROWS[1], ROWS[0], ("2.jpg", "", "train")])
    with pytest.raises(MissingCaptionError, match=r"d\.csv:4"):
        load_manifest(file)


def test_a_column_with_other_words_or_one_split_is_a_column_like_others(tmp_path):
    words = [("0.jpg", "a", "train"), ("1.jpg", "b", "close-up")]
    assert len(load_manifest(written(tmp_path, words))) == 2
    assert len(load_manifest(written(tmp_path, [("0.jpg", "a", "test"), ("1.jpg", "b", "test")]))) == 2
    with pytest.raises(ConfigError, match="has no split 'test'"):
        load_manifest(written(tmp_path, words), split="test")


def test_no_train_among_several_is_asked_for(tmp_path):
    with pytest.raises(ManifestError, match=r"has the splits test \(1 rows\), validation \(1 rows\); choose one"):
        load_manifest(written(tmp_path, [ROWS[1], ROWS[3]]))


def test_metadata_beside_images_has_splits_too(tmp_path, photos):
    for name in ("00.jpg", "01.jpg"):
        (tmp_path / name).write_bytes((photos / name).read_bytes())
    (tmp_path / "metadata.csv").write_text("file_name,text,split\n00.jpg,a,train\n01.jpg,b,test\n")
    assert load_manifest(tmp_path).ids.to_pylist() == ["00.jpg"]


def test_one_empty_file_of_text_among_others_is_a_note(tmp_path):
    (tmp_path / "a.jsonl").write_text("")
    (tmp_path / "b.jsonl").write_text('{"url": "https://example.com/1.jpg", "text": "x"}\n')
    manifest = load_manifest(tmp_path)
    assert len(manifest) == 1 and "a.jsonl is empty" in manifest.describe()["notes"]
    assert len(load_manifest([tmp_path / "a.jsonl", tmp_path / "b.jsonl"])) == 1
    with pytest.raises(ManifestError, match="the file is empty"):
        load_manifest(tmp_path / "a.jsonl")
