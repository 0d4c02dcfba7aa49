"""The validation split: deterministic, stable under additions, and without leakage."""

import json
import os
import shutil

import lmdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from calotype.errors import ConfigError, ManifestError
from calotype.manifest import load_manifest


@pytest.fixture
def many(put, jpeg):
    for number in range(60):
        put(f"{number:02d}.jpg", jpeg(number))
        put(f"{number:02d}.txt", f"caption {number}")
    return put


def sides(path, **options):
    options = {"validation": 0.25, **options}
    train, held = load_manifest(path, split="train", **options), load_manifest(path, split="validation", **options)
    return {row.id for row in train}, {row.id for row in held}


def test_two_sides_cover_everything_once(many):
    train, held = sides(many.root)
    assert not train & held
    assert train | held == {f"{number:02d}.jpg" for number in range(60)}
    assert 5 <= len(held) <= 27  # 15 expected; a binomial leaves this once in 10,000
    assert sides(many.root) == (train, held)
    assert sides(many.root, validation_seed=1) != (train, held)
    whole = load_manifest(many.root, validation=0.25)
    assert {row.id for row in whole} == train, "without split= it is the training side, so that nothing leaks"
    assert whole.describe()["validation"] == {"side": "train", "train": len(train), "validation": len(held)}


def test_a_larger_share_only_adds(many):
    assert sides(many.root, validation=0.1)[1] < sides(many.root, validation=0.4)[1]


def test_adding_renaming_or_moving_images_moves_no_other(many, jpeg, tmp_path):
    train, held = sides(many.root)
    for number in range(100, 160):
        many(f"{number}.jpg", jpeg(number)), many(f"{number}.txt", "x")
    more_train, more_held = sides(many.root)
    assert train <= more_train and held <= more_held
    shutil.move(many.root, tmp_path / "moved")
    assert sides(tmp_path / "moved") == (more_train, more_held)


def test_copies_of_an_image_are_on_its_side(many):
    """Under other names, in other folders, inside an archive: equal bytes land on one side."""
    train, held = sides(many.root)
    for name in (*train, *held):
        many(f"copies/of-{name}", (many.root / name).read_bytes()), many(f"copies/of-{name[:-4]}.txt", "other words")
    copied_train, copied_held = sides(many.root)
    assert copied_train == train | {f"copies/of-{name}" for name in train}
    assert copied_held == held | {f"copies/of-{name}" for name in held}


def test_every_container_agrees_on_the_side(many, jpeg):
    """An image is on the same side as a file, a value of a Parquet file and a value of an LMDB environment."""
    _, held = sides(many.root)
    pq.write_table(pa.table({"image": [jpeg(n) for n in range(60)], "text": ["x"] * 60}), many("t/a.parquet", ""))
    assert sides(many.root / "t" / "a.parquet")[1] == {f"a.parquet#{int(name[:2])}" for name in held}
    with lmdb.open(str(many.root / "l"), map_size=1 << 24) as environment, environment.begin(write=True) as writing:
        for n in range(60):
            writing.put(b"%02d.jpg" % n, jpeg(n)), writing.put(b"%02d.txt" % n, b"x")
    assert sides(many.root / "l")[1] == {f"l!{name}" for name in held}


def test_long_files_of_one_size_differ(put):
    """Uncompressed images all have one size; the side must not hang on that alone, nor on the header."""
    for number in range(60):
        middle = number.to_bytes(2, "big") * 8192
        put(f"{number:02d}.bmp", b"\0" * 200_000 + middle + b"\0" * 200_000), put(f"{number:02d}.txt", "x")
    train, held = sides(put.root)
    assert 5 <= len(held) <= 27 and len(train) == 60 - len(held)


def test_remote_and_missing_images_go_by_name(put):
    refs = [f"https://h.example/{number}.jpg" for number in range(40)] + [f"gone/{number}.jpg" for number in range(40)]
    file = put("a.jsonl", "".join(json.dumps({"image": ref, "text": "x"}) + "\n" for ref in refs))
    train, held = sides(file)
    assert len(train) + len(held) == 80 and 8 <= len(held) <= 35
    assert sides(file) == (train, held)


def test_a_side_with_nothing_in_it_is_an_error(put):
    put("a.jpg"), put("a.txt", "x")
    counts = []
    for split in ("train", "validation"):
        try:
            counts.append(len(load_manifest(put.root, validation=0.5, split=split)))
        except ManifestError as error:
            assert f"leaves none for split={split!r}" in str(error)
            counts.append(0)
    assert sorted(counts) == [0, 1]
    with pytest.raises(ConfigError, match="'test'; expected 'train' or 'validation'"):
        load_manifest(put.root, validation=0.5, split="test")


def test_a_pipe_called_as_an_image_keeps_no_reader_waiting(put):
    for number in range(8):
        put(f"{number}.jpg")
    os.mkfifo(put.root / "pipe.jpg")
    manifest = load_manifest(put.root, missing_captions="empty", validation=0.5)
    assert sum(manifest.describe()["validation"][side] for side in ("train", "validation")) == 9
