"""One notion of an unchanged file: what is remembered of it holds while its `FileState` does."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import lmdb
import pyarrow as pa
import pyarrow.parquet
import pytest
from PIL import Image

from calotype.check.facts import scan_facts
from calotype.core.file_state import FileState, file_holding, file_state, state_of
from calotype.core.report_cache import files_state, folders_state
from calotype.images import ImageReader, scan_sizes
from calotype.images.cache_table import CacheTable, file_keys
from calotype.images.scan import scan_contents
from calotype.manifest import load_manifest
from calotype.types import ImageRef


def bitmap(red: int, size: tuple[int, int] = (8, 8)) -> bytes:
    """Always as long as another of as many pixels."""
    file = io.BytesIO()
    Image.new("RGB", size, (red, 0, 0)).save(file, "BMP")
    return file.getvalue()


def tar(order: list[int]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for number in order:
            for name, data in ((f"{number}.bmp", bitmap(number)), (f"{number}.txt", b"image %d" % number)):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    return file.getvalue()


def parquet(order: list[int]) -> bytes:
    file = io.BytesIO()
    rows = pa.table({"image": [bitmap(one) for one in order], "text": [f"image {one}" for one in order]})
    pyarrow.parquet.write_table(rows, file, compression="none", use_dictionary=False)
    return file.getvalue()


def environment(order: list[int]) -> bytes:
    place = Path(os.environ["CALOTYPE_CACHE"]) / f"{order}.lmdb"
    place.parent.mkdir(parents=True, exist_ok=True)
    with lmdb.open(str(place), subdir=False, map_size=1 << 20) as opened, opened.begin(write=True) as transaction:
        for key, number in enumerate(order):
            transaction.put(f"{key}.bmp".encode(), bitmap(number))
            transaction.put(f"{key}.txt".encode(), b"image %d" % number)
    return place.read_bytes()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CALOTYPE_CACHE", str(tmp_path / "cache"))


def replace(file: Path, data: bytes) -> None:
    """As `rsync -t` and `cp -p` do: other bytes, as many, and the time set back."""
    before = file.stat()
    file.write_bytes(data)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = file.stat()
    assert (after.st_size, after.st_mtime_ns) == (before.st_size, before.st_mtime_ns)


@pytest.mark.parametrize(("suffix", "made"), [("tar", tar), ("parquet", parquet), ("lmdb", environment)])
def test_an_archive_made_anew_keeps_no_index_of_the_old_one(
    suffix: str, made: Callable[[list[int]], bytes], tmp_path: Path
) -> None:
    file = tmp_path / f"a.{suffix}"
    reader = ImageReader()
    file.write_bytes(made([0, 1, 2, 3]))
    load_manifest(file)
    replace(file, made([3, 2, 1, 0]))
    for row in load_manifest(file):
        assert row.captions == (f"image {reader.read(row.image).pixels[0, 0, 0]}",)


def test_images_of_equal_length_and_time_are_looked_at_again(tmp_path: Path) -> None:
    file, reader = tmp_path / "a.bmp", ImageReader()
    ref = ImageRef(name="a.bmp", path=str(file))
    file.write_bytes(bitmap(1, (8, 16)))
    (before,) = scan_contents([ref], reader)
    assert scan_sizes([ref], reader)[0].tolist() == [[16, 8]]
    assert [one.header.size for one in scan_facts([ref], reader, deep=False, threads=1)] == [(16, 8)]
    replace(file, bitmap(2, (16, 8)))
    (after,) = scan_contents([ref], reader)
    assert before != after
    assert scan_sizes([ref], reader)[0].tolist() == [[8, 16]]
    assert [one.header.size for one in scan_facts([ref], reader, deep=False, threads=1)] == [(8, 16)]


def test_reports_and_folders_notice_it(tmp_path: Path) -> None:
    file = tmp_path / "photos" / "a.bmp"
    file.parent.mkdir()
    file.write_bytes(bitmap(1))
    before = folders_state([str(file.parent)]), files_state([str(file)])
    assert before == (folders_state([str(file.parent)]), files_state([str(file)]))
    replace(file, bitmap(2))
    assert not set(before) & {folders_state([str(file.parent)]), files_state([str(file)])}


def test_another_file_of_the_same_name_is_another(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(b"same")
    state = file_state(tmp_path / "a")
    (tmp_path / "b").replace(tmp_path / "a")
    assert state is not None and file_state(tmp_path / "a") not in (None, state)
    assert file_state(tmp_path / "b") is None and file_state("a\0b") is None


def test_each_part_of_a_state_counts_and_the_device_does_not() -> None:
    def state(size: int = 1, mtime: int = 2, ctime: int = 3, inode: int = 4, device: int = 5) -> FileState:
        return state_of(os.stat_result((0, inode, device, 1, 0, 0, size, 0, 0, 0, 0.0, 0.0, 0.0, 0, mtime, ctime)))

    assert len({state(), state(size=9), state(mtime=9), state(ctime=9), state(inode=9)}) == 5
    assert state(device=9) == state()


def test_numbers_that_sqlite_has_no_room_for(tmp_path: Path) -> None:
    """Some file systems make inode numbers of 64 bits, and times that lie centuries ahead."""
    values = list(tmp_path.stat()[:10])
    values[1] = 2**64 - 3
    state = state_of(os.stat_result((*values, 0.0, 0.0, 0.0, 0, 2**63 + 5, 7)))
    assert state.mtime_ns == 5 - 2**63
    assert all(-(2**63) <= one < 2**63 for one in state)
    with CacheTable("t", "t", key=("a", "b"), state=FileState._fields, values=("x",), what="trials") as memory:
        memory.put([("a", "b", *state, 1)])
        assert memory.get([("a", "b", *state)]) == [(1,)]


def test_images_in_one_file_have_keys_of_their_own_and_its_state(tmp_path: Path) -> None:
    file = tmp_path / "a.tar"
    file.write_bytes(b"x" * 9)
    parts = [ImageRef(name="a", path=str(file), offset=offset, size=3) for offset in (0, 3)]
    (tmp_path / "data.mdb").write_bytes(b"y")
    values = [ImageRef(name="a", path=str(tmp_path), key=key) for key in (b"1", b"2")]
    keys = file_keys([*parts, *values])
    assert len(set(keys)) == 4
    for key, holder in zip(keys, [file, file, *[tmp_path / "data.mdb"] * 2], strict=True):
        assert key is not None and key[2:] == file_state(holder)


def test_the_file_that_holds_an_image(tmp_path: Path) -> None:
    assert file_holding(str(tmp_path), b"key") == f"{tmp_path}/data.mdb"
    assert file_holding(f"{tmp_path}/one.mdb", b"key") == f"{tmp_path}/one.mdb"
    assert file_holding(str(tmp_path), None) == str(tmp_path)
