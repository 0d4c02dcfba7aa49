"""Files and folders that permissions forbid: one line with the one that can't be read, status 1, JSON as well."""

from __future__ import annotations

import json
import sys

import datasets
import lmdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from command import calotype
from permissions import as_permitted

from calotype.errors import ManifestError
from calotype.manifest import load_manifest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="capabilities are Linux's")


def make_lmdb(path):
    with lmdb.open(str(path), map_size=1 << 20) as environment, environment.begin(write=True) as transaction:
        transaction.put(b"a.jpg", b"x")


def make_tree(path, jpeg):
    (path / "in").mkdir(parents=True)
    (path / "a.jpg").write_bytes(jpeg())
    (path / "a.txt").write_text("a photo")
    (path / "in" / "b.jpg").write_bytes(jpeg())


CASES = {
    "folder": (make_tree, "", "folder: the folder can't be read: Permission denied"),
    "nested": (make_tree, "in", "nested/in: the folder can't be read: Permission denied"),
    "captions": (make_tree, "a.txt", "captions/a.txt: the caption file can't be read: Permission denied"),
    "rows.jsonl": (lambda path, _: path.write_text("{}"), "", "rows.jsonl: can't be read: Permission denied"),
    "rows.csv": (lambda path, _: path.write_text("image"), "", "rows.csv: can't be read: Permission denied"),
    "rows.parquet": (lambda path, _: pq.write_table(pa.table({"image": ["a"]}), path), "", "Permission denied"),
    "shard.tar": (lambda path, _: path.write_bytes(bytes(10240)), "", "shard.tar: can't be read: Permission denied"),
    "x.lmdb": (lambda path, _: make_lmdb(path), "data.mdb", "x.lmdb: can't be read: Permission denied"),
    "saved": (
        lambda path, _: datasets.Dataset.from_dict({"image": ["a"]}).save_to_disk(str(path)),
        "state.json",
        "saved/state.json: can't be read: Permission denied",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_what_may_not_be_read_is_named(tmp_path, jpeg, name):
    make, inside, reason = CASES[name]
    make(tmp_path / name, jpeg)
    (tmp_path / name / inside if inside else tmp_path / name).chmod(0)
    with as_permitted(), pytest.raises(ManifestError) as raised:
        load_manifest(tmp_path / name, missing_captions="empty")
    (tmp_path / name / inside if inside else tmp_path / name).chmod(0o700)
    assert reason in str(raised.value) and str(raised.value).count(str(tmp_path)) <= 2


def test_a_destination_that_may_not_be_written_is_a_problem_and_no_wrong_use(tmp_path, jpeg):
    make_tree(tmp_path / "photos", jpeg)
    (tmp_path / "locked").mkdir(mode=0o500)
    with as_permitted():
        out, err = calotype(
            "convert", tmp_path / "photos", tmp_path / "locked" / "out", "--to", "jsonl", "--json", code=1
        )
    assert err.count("\n") == 1 and json.loads(out)["exit_status"] == 1 and "Permission denied" in err
