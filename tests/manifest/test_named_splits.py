"""Splits by name: a local folder is read as a dataset of the hub is."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from calotype.errors import ConfigError, ManifestError
from calotype.manifest import load_manifest


def ids(manifest):
    return list(manifest.ids.to_pylist())


def photos(put, *names):
    for name in names:
        put(f"{name}.jpg"), put(f"{name}.txt", name)


def rows(put, name, *images):
    path = put(name, "")
    pq.write_table(pa.table({"image": list(images), "text": ["x"] * len(images)}), path)


@pytest.mark.parametrize(
    "splits",
    [
        ("train", "test"),
        ("Training", "val"),
        ("data/train", "data/validation", "data/test"),
        ("train2017", "val2017"),
        ("train_set", "Test-Images"),
    ],
)
def test_folders_of_splits_without_a_word_are_train(put, splits):
    photos(put, *(f"{split}/{number}" for split in splits for number in (0, 1)))
    manifest = load_manifest(put.root)
    assert ids(manifest) == [f"{splits[0]}/0.jpg", f"{splits[0]}/1.jpg"]
    (note,) = manifest.describe()["notes"]
    assert note.startswith("split 'train' was read of train (2 images), ") and "split='all' reads all" in note
    assert len(load_manifest(put.root, split="all")) == 2 * len(splits)


def test_shards_of_a_clone_of_the_hub(put):
    rows(put, "data/train-00000-of-00002.parquet", "a.jpg"), rows(put, "data/train-00001-of-00002.parquet", "b.jpg")
    rows(put, "data/test-00000-of-00001.parquet", "c.jpg"), put("dataset_infos.json", "{}")
    manifest = load_manifest(put.root)
    assert ids(manifest) == ["data/a.jpg", "data/b.jpg"]
    assert "test (1 files)" in manifest.describe()["notes"][0]
    assert len(load_manifest(put.root, split="all")) == 3


def test_files_in_no_split_are_named(put):
    rows(put, "train.parquet", "a.jpg"), rows(put, "test.parquet", "b.jpg"), rows(put, "more.parquet", "c.jpg")
    assert [(entry.kind, entry.id) for entry in load_manifest(put.root).ledger] == [
        ("no_split", str(put.root / "more.parquet"))
    ]


def test_one_split_or_none_is_all_there_is(put):
    photos(put, "train/a", "bus/b", "c")
    manifest = load_manifest(put.root)
    assert len(manifest) == 3 and not manifest.describe()["notes"]


def test_several_splits_without_train_are_to_be_chosen_from(put):
    photos(put, "validation/a", "test/b")
    with pytest.raises(ManifestError, match=r"validation \(1 images\), test \(1 images\); choose one with split="):
        load_manifest(put.root)
    assert ids(load_manifest(put.root, split="test")) == ["test/b.jpg"]


@pytest.mark.parametrize("split", [None, "train"])
def test_metadata_above_the_splits_stays_joined_and_brings_no_other_split(put, split):
    names = ["train/a.jpg", "test/b.jpg"]
    for name in names:
        put(name)
    put("metadata.jsonl", "".join(json.dumps({"file_name": name, "text": name}) + "\n" for name in names))
    put("test/metadata.csv", "file_name,text\nb.jpg,more\n")
    manifest = load_manifest(put.root, split=split)
    assert [(row.id, row.captions) for row in manifest] == [("train/a.jpg", ("train/a.jpg",))]
    assert not len(manifest.ledger)
    everything = load_manifest(put.root, split="all")
    assert [row.captions for row in everything] == [("train/a.jpg",), ("test/b.jpg", "more")]


def test_a_share_held_out_is_of_train(put):
    photos(put, *(f"{split}/{number}" for split in ("train", "test") for number in range(16)))
    sides = [load_manifest(put.root, validation=0.5, split=side) for side in ("train", "validation")]
    assert sorted(id for side in sides for id in ids(side)) == sorted(f"train/{number}.jpg" for number in range(16))


def test_all_of_what_has_no_splits(put):
    photos(put, "a")
    put("rows.jsonl", '{"image": "a.jpg", "text": "x"}\n')
    assert len(load_manifest(put.root, split="all")) == len(load_manifest(put.root / "rows.jsonl", split="all")) == 1
    files = {"train": "rows.jsonl", "test": "rows.jsonl"}
    assert len(load_manifest(put.root, data_files=files, split="all")) == 1
    with pytest.raises(ConfigError, match="no split 'test'"):
        load_manifest(put.root / "rows.jsonl", split="test")
