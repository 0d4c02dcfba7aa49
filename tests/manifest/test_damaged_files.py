"""Files that are damaged, of another kind, or can't be looked up: one line with the file, once, and what to do."""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from calotype.errors import ManifestError
from calotype.manifest import load_manifest


def parquet(folder) -> bytes:
    pq.write_table(pa.table({"image": ["a.png"], "text": ["x"]}), folder / "whole.parquet")
    return (folder / "whole.parquet").read_bytes()


CASES = {
    "cut.parquet": (lambda folder: parquet(folder)[:-20], "damaged, or not a Parquet file"),
    "other.parquet": (lambda _: b"hello", "damaged, or not a Parquet file"),
    "empty.parquet": (lambda _: b"", "copy or write it again"),
    "other.arrow": (lambda _: b"hello hello hello", "damaged, or not an Arrow file"),
    "other.tar": (lambda _: bytes(range(256)) * 8, "not a tar archive"),
    "other.lmdb": (lambda _: b"nope", "not an LMDB environment"),
    "binary.jsonl": (lambda _: b"\xff\xfe\x00\x01" * 99, ""),
    "cut.json": (lambda _: b'{"a":', "not valid JSON"),
    "latin.csv": (lambda _: b"file_name,text\na.png,caf\xe9\n", "save the file as UTF-8"),
    "empty.csv": (lambda _: b"", "the file is empty"),
    "long.jsonl": (lambda _: json.dumps({"file_name": "x" * 5000 + ".png", "text": "a"}).encode(), "5,004 characters"),
    "packed.jsonl.gz": (lambda _: b"\x1f\x8bxxxx", "Unpack it: gunzip"),
    "x" * 300: (None, "File name too long"),
    "loop": ("loop", "Too many levels of symbolic links"),
    "a\0b": (None, "it has a null byte"),
}


@pytest.mark.parametrize("name", CASES)
def test_a_file_that_can_not_be_read_is_one_clear_line(tmp_path, name):
    content, reason = CASES[name]
    path = tmp_path / name
    if content == "loop":
        path.symlink_to(path)
    elif content is not None:
        path.write_bytes(content(tmp_path))
    with pytest.raises(ManifestError) as raised:
        load_manifest(path)
    text = str(raised.value)
    assert reason in text and text.count(str(path)[:150]) == 1 + ("Unpack" in reason)
    assert "\n" not in text and "Traceback" not in text and "Errno" not in text and ".;" not in text
