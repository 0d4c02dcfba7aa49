"""Other people's readers find in a result what went in."""

import glob
import io
import json
import os
import shutil

import pyarrow.parquet as pq
import pytest
from convert_helpers import convert, load
from PIL import Image

from calotype.convert import arrow


@pytest.fixture(scope="module")
def rows(source):
    return list(load(source))


def bytes_of(row):
    with open(row.image.path, "rb") as file:
        return file.read()


def pixels(data):
    return Image.open(io.BytesIO(data)).convert("RGB").tobytes()


def captions(row):
    return [text for text in row.captions if text]


@pytest.mark.parametrize("name", ["imagefolder", "parquet", "hf"])
def test_datasets(converted, source, rows, name, tmp_path):
    import datasets

    if name == "hf":
        found = datasets.load_from_disk(str(converted[name]))
    elif name == "imagefolder":
        # It reads JSON with Arrow, to which a column has one type; that is said when it is written.
        assert json.loads((converted[name] / "metadata.jsonl").read_text().splitlines()[1])["mixed"] == "text"
        plain = shutil.copytree(source, tmp_path / "plain")
        lines = [json.loads(line) for line in (plain / "metadata.jsonl").read_text().splitlines()]
        (plain / "metadata.jsonl").write_text("".join(json.dumps(line | {"mixed": ""}) + "\n" for line in lines))
        assert "mixed_types" not in {found.kind for found in convert(plain, tmp_path / "out", name).findings}
        found = datasets.load_dataset(name, data_dir=str(tmp_path / "out"), split="train", cache_dir=str(tmp_path))
    else:
        found = datasets.load_dataset(str(converted[name]), split="train", cache_dir=str(tmp_path))
    assert found["id"] == [row.id for row in rows]
    assert [list(text) for text in found["text"]] == [captions(row) for row in rows]
    assert found["weight"] == [row.weight for row in rows]
    assert isinstance(found.features["image"], datasets.Image)
    images = [example["image"].convert("RGB").tobytes() for example in found]
    assert images == [pixels(bytes_of(row)) for row in rows]


# webdataset leaves its shards open.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_webdataset(converted, rows):
    import webdataset

    shards = sorted(map(str, converted["webdataset"].glob("*.tar")))
    samples = list(webdataset.WebDataset(shards, shardshuffle=False))
    assert len({sample["__key__"] for sample in samples}) == len(rows)
    for sample, row in zip(samples, rows, strict=True):
        picture = next(value for key, value in sample.items() if key in ("jpg", "png", "webp"))
        assert picture == bytes_of(row)
        assert sample["txt"].decode() == next(iter(captions(row)), "")
        described = json.loads(sample["json"])
        assert (described["id"], described["text"], described["weight"]) == (row.id, captions(row), row.weight)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_webdataset_decoded_in_batches(source, tmp_path, rows):
    import webdataset

    convert(source, tmp_path / "shards", "webdataset", shard_size=4000)
    shards = sorted(map(str, (tmp_path / "shards").glob("*.tar")))
    assert len(shards) > 1
    dataset = webdataset.WebDataset(shards, shardshuffle=False).decode("pil").to_tuple("jpg;png;webp", "txt", "json")
    sizes = [picture.size for picture, _, _ in dataset]
    assert sizes == [(row.width, row.height) for row in rows]


def test_lmdb(converted, rows, tmp_path):
    import lmdb

    place = shutil.copytree(converted["lmdb"], tmp_path / "lmdb")  # this process has the other one open

    with (
        lmdb.open(str(place), readonly=True, lock=False) as environment,
        environment.begin() as transaction,
    ):
        items = dict(transaction.cursor())
    pictures = [value for key, value in sorted(items.items()) if not key.endswith(b".json")]
    described = [json.loads(value) for key, value in sorted(items.items()) if key.endswith(b".json")]
    assert pictures == [bytes_of(row) for row in rows]
    assert [(each["id"], each["text"]) for each in described] == [(row.id, captions(row)) for row in rows]


def test_pyarrow(source, tmp_path, rows, monkeypatch):
    convert(source, tmp_path / "out", "parquet", shard_size=6000)
    files = sorted((tmp_path / "out").glob("*.parquet"))
    assert len(files) > 1
    table = pq.read_table(tmp_path / "out")
    assert [value["bytes"] for value in table["image"].to_pylist()] == [bytes_of(row) for row in rows]
    assert [value["path"] for value in table["image"].to_pylist()][:2] == ["a.png", "a.jpg"]
    assert table["text"].to_pylist() == [captions(row) for row in rows]
    with monkeypatch.context() as patched:
        patched.setattr(arrow, "_BATCH_ROWS", 2)
        convert(source, tmp_path / "groups.parquet", "parquet")
    with pq.ParquetFile(tmp_path / "groups.parquet") as file:
        assert [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)] == [2, 2, 1]
    assert table["tags"].to_pylist()[1] == {"year": 1991, "marks": ["x"]}


KOHYA_SUFFIXES = [".png", ".jpg", ".jpeg", ".webp", ".bmp"]


def as_kohya_reads(folder, enable_wildcard):
    """sd-scripts' own rules, from `config_util.generate_dreambooth_subsets_config_by_subdirs`, `glob_images` and
    `DreamBoothDataset.read_caption`: {path: (repeats, captions)}."""
    found = {}
    for name in os.listdir(folder):
        if not os.path.isdir(os.path.join(folder, name)):
            continue
        repeats, _, class_tokens = name.partition("_")
        if not repeats.isdigit() or int(repeats) < 1:
            continue
        for suffix in KOHYA_SUFFIXES:
            for file in glob.glob(os.path.join(glob.escape(os.path.join(folder, name)), "*" + suffix)):
                caption_file = os.path.splitext(file)[0] + ".txt"
                text = [class_tokens]
                if os.path.isfile(caption_file):
                    with open(caption_file, encoding="utf-8") as opened:
                        lines = opened.readlines()
                    assert len(lines) > 0
                    text = [line.strip() for line in lines if line.strip()] if enable_wildcard else [lines[0].strip()]
                found[os.path.relpath(file, folder)] = int(repeats), text or [""]
    return found


def test_kohya(converted, rows):
    found = as_kohya_reads(converted["kohya"], enable_wildcard=True)
    # The last has a weight of 0, so it is in a folder that kohya passes over, and the third half a repeat.
    assert found == {
        "1_my photos/a.png": (1, list(rows[0].captions)),
        "3_my photos/a.jpg": (3, list(rows[1].captions)),
        "1_my photos/夜 é.jpg": (1, [""]),
        "10_sks dog/a.jpg": (10, ["spaces kept", "three", "{braces} and 'quotes'"]),
    }
    for name, (_, text) in as_kohya_reads(converted["kohya"], enable_wildcard=False).items():
        assert text == found[name][1][:1]
    assert (converted["kohya"] / "0_my photos" / "b.c.webp").read_bytes() == bytes_of(rows[4])
