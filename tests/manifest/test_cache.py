"""A cache that can't be written, is full or is damaged costs time, and never a dataset."""

import io
import os
import pickle
import resource
import subprocess
import sys
import tarfile
from contextlib import contextmanager
from pathlib import Path

import lmdb
import pyarrow as pa
import pyarrow.parquet
import pytest

from calotype.core.cache_folder import cache_folder
from calotype.errors import ManifestError
from calotype.manifest import load_manifest
from calotype.manifest import manifest as manifest_module
from calotype.manifest.cache import write_arrow


def write_tar(path, jpeg):
    with tarfile.open(path, "w") as tar:
        for name, data in (("a.jpg", jpeg(1)), ("a.txt", b"a cat")):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def write_lmdb(path, jpeg):
    with lmdb.open(str(path), subdir=False, map_size=1 << 20) as opened, opened.begin(write=True) as transaction:
        transaction.put(b"a.jpg", jpeg(1))
        transaction.put(b"a.txt", b"a cat")


def write_parquet(path, jpeg):
    pyarrow.parquet.write_table(pa.table({"image": [jpeg(1)], "text": ["a cat"]}), path)


WRITERS = {"s.tar": write_tar, "s.lmdb": write_lmdb, "s.parquet": write_parquet}


@contextmanager
def full_disk():
    """Every file takes 1 kB, and then writing fails."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.parametrize("name", WRITERS)
def test_a_cache_that_cannot_be_written_is_gone_without(name, put, read, jpeg, tmp_path, monkeypatch):
    file = put(name, "")
    WRITERS[name](file, jpeg)
    (tmp_path / "taken").write_text("a file where the folder should be")
    monkeypatch.setenv("CALOTYPE_CACHE", str(tmp_path / "taken"))
    for _ in range(2):
        manifest = load_manifest(file)
        assert [(row.captions, read(row.image)) for row in manifest] == [(("a cat",), jpeg(1))]
        (note,) = manifest.describe()["notes"]
        assert note.startswith(f"the cache {tmp_path}/taken/") and "CALOTYPE_CACHE" in note


def test_a_full_disk_costs_the_index_and_is_named_where_a_file_is_needed(put, jpeg, cache):
    for name, write in WRITERS.items():
        write(put(name, ""), jpeg)
    with full_disk():
        assert len(load_manifest(put.root / "s.tar")) == len(load_manifest(put.root / "s.lmdb")) == 1
        with pytest.raises(ManifestError, match=rf"the cache {cache}/images can't be written \(File too large\)"):
            load_manifest(put.root / "s.parquet")
    assert not list(cache.rglob(".writing-*"))
    assert len(load_manifest(put.root / "s.parquet")) == 1


def test_a_large_manifest_stays_in_memory_where_the_disk_is_full(put, monkeypatch):
    monkeypatch.setattr(manifest_module, "_SPILL_BYTES", 1)
    data = put("a.jsonl", "".join(f'{{"image": "{number}.jpg", "caption": "c"}}\n' for number in range(99)))
    with full_disk():
        manifest = load_manifest(data)
    assert pickle.loads(pickle.dumps(manifest)).ids == manifest.ids


def test_the_temporary_folder_goes_away_with_its_process(put, jpeg, tmp_path):
    file = put("s.parquet", "")
    write_parquet(file, jpeg)
    (tmp_path / "tmp").mkdir()
    code = (
        "import os, sys; from calotype.manifest import load_manifest\n"
        "row = load_manifest(sys.argv[1])[0]\n"
        "if os.fork() == 0: sys.exit()\n"
        "os.wait(); print(open(row.image.path, 'rb').read() != b'')"
    )
    environment = {**os.environ, "CALOTYPE_CACHE": "/proc/nowhere", "TMPDIR": str(tmp_path / "tmp")}
    done = subprocess.run(
        [sys.executable, "-c", code, file], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout == "True\n"
    assert not list((tmp_path / "tmp").iterdir())


def test_a_damaged_index_is_made_anew(put, jpeg, cache):
    file = put("s.tar", "")
    write_tar(file, jpeg)
    load_manifest(file)
    (index,) = (cache / "archives").iterdir()
    index.write_bytes(index.read_bytes()[:-100])
    assert load_manifest(file)[0].captions == ("a cat",)
    index.write_bytes(b"")
    assert load_manifest(file)[0].captions == ("a cat",)


@pytest.mark.parametrize("damage", [lambda data: data[:-8], lambda data: data[:-8] + bytes(8)])
def test_a_damaged_file_of_a_manifest_is_named(damage, put, cache, monkeypatch):
    monkeypatch.setattr(manifest_module, "_SPILL_BYTES", 1)
    sent = pickle.dumps(load_manifest(put("a.jsonl", '{"image": "a.jpg", "caption": "c"}\n')))
    (spilled,) = (cache / "manifests").iterdir()
    spilled.write_bytes(damage(spilled.read_bytes()))
    with pytest.raises(ManifestError, match=rf"the manifest's file {spilled} is damaged .*: load the manifest again"):
        pickle.loads(sent)


def test_a_user_without_a_home(monkeypatch):
    monkeypatch.delenv("CALOTYPE_CACHE")
    monkeypatch.delenv("HOME", raising=False)

    def unknown():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", unknown)
    assert cache_folder("sizes") == Path("/.cache/calotype/sizes")


def test_what_is_to_be_found_later_is_on_the_disk_before_it_has_its_name(monkeypatch, tmp_path):
    monkeypatch.setenv("CALOTYPE_CACHE", str(tmp_path))
    events, fsync, replace = [], os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda file: (events.append("flushed"), fsync(file)))
    monkeypatch.setattr(Path, "replace", lambda path, to: (events.append("renamed"), replace(path, to)))
    batch = pa.record_batch({"a": [1]})
    write_arrow("archives", lambda: (batch.schema, [batch]), "name")
    write_arrow("archives", lambda: (batch.schema, [batch]))
    assert events == ["flushed", "renamed", "flushed", "renamed"]  # the file, its name, the folder
