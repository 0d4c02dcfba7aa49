"""`scan_sizes`: sizes of many images, remembered until a file changes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from calotype.errors import DecompressionBombError, ImageError
from calotype.images import ImageReader, scan_contents, scan_sizes
from calotype.types import ImageRef


class Counting(ImageReader):
    """A reader that counts the headers it was asked for."""

    asked = 0

    def header(self, ref: ImageRef):
        self.asked += 1
        return super().header(ref)


@pytest.fixture
def refs(photo, encode, tmp_path) -> list[ImageRef]:
    made = []
    for index in range(40):
        path = tmp_path / f"{index}.jpg"
        path.write_bytes(encode(photo.resize((30 + index, 20)), "JPEG"))
        made.append(ImageRef(name=path.name, path=str(path)))
    return made


EXPECTED = [[20, 30 + index] for index in range(40)]


def test_sizes_and_what_is_unreadable(refs):
    Path(refs[7].path).write_text("<html>")
    refs[9] = ImageRef(name="gone.jpg", path="/nowhere/gone.jpg")
    sizes, errors = scan_sizes(refs, ImageReader(), threads=3)
    assert sizes.dtype == np.int32
    expected = [size if index not in (7, 9) else [0, 0] for index, size in enumerate(EXPECTED)]
    assert sizes.tolist() == expected
    assert [index for index, _ in errors] == [7, 9]
    assert "HTML page" in str(errors[0][1])
    assert isinstance(errors[1][1], ImageError)


def test_a_second_run_reads_no_file(refs):
    first = Counting()
    assert scan_sizes(refs, first)[0].tolist() == EXPECTED
    assert first.asked == 40
    second = Counting()
    assert scan_sizes(iter(refs), second)[0].tolist() == EXPECTED
    assert second.asked == 0


def test_a_changed_file_is_read_again(refs, photo, encode):
    scan_sizes(refs, ImageReader())
    Path(refs[3].path).write_bytes(encode(photo.resize((99, 98)), "JPEG"))
    info = Path(refs[5].path).stat()
    os.utime(refs[5].path, ns=(info.st_atime_ns, info.st_mtime_ns + 1))
    reader = Counting()
    sizes, _ = scan_sizes(refs, reader)
    assert sizes[3].tolist() == [98, 99]
    assert reader.asked == 2


def test_what_was_unreadable_is_tried_again(refs, photo, encode):
    path = Path(refs[0].path)
    good = path.read_bytes()
    path.write_bytes(good[:50])
    assert [index for index, _ in scan_sizes(refs, ImageReader())[1]] == [0]
    path.write_bytes(good)
    assert scan_sizes(refs, ImageReader())[0].tolist() == EXPECTED


def test_members_of_one_file_and_lmdb_values_are_told_apart(refs, tmp_path):
    parts = [Path(ref.path).read_bytes() for ref in refs[:3]]
    (tmp_path / "shard.bin").write_bytes(b"".join(parts))
    members, offset = [], 0
    for part in parts:
        members.append(ImageRef(name="m", path=str(tmp_path / "shard.bin"), offset=offset, size=len(part)))
        offset += len(part)
    lmdb = pytest.importorskip("lmdb")
    with lmdb.open(str(tmp_path / "env"), map_size=1 << 22) as environment, environment.begin(write=True) as write:
        for index, part in enumerate(parts):
            write.put(b"%d" % index, part)
    members += [ImageRef(name="l", path=str(tmp_path / "env"), key=b"%d" % index) for index in range(3)]
    for asked in (6, 0):
        reader = Counting()
        assert scan_sizes(members, reader)[0].tolist() == EXPECTED[:3] * 2
        assert reader.asked == asked


def test_a_remembered_size_does_not_pass_by_max_pixels(refs):
    scan_sizes(refs, ImageReader())
    sizes, errors = scan_sizes(refs, ImageReader(max_pixels=20 * 60))
    assert [index for index, _ in errors] == list(range(31, 40))
    assert all(isinstance(error, DecompressionBombError) for _, error in errors)
    assert sizes[30].tolist() == [20, 60]


def test_progress_ends_at_the_whole(refs):
    seen = []
    scan_sizes(refs * 20, ImageReader(), threads=1, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (800, 800)
    assert len(seen) > 1
    assert seen == sorted(seen)
    assert scan_sizes([], ImageReader())[0].shape == (0, 2)


def test_a_memory_that_can_not_be_kept_costs_only_the_memory(refs, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("CALOTYPE_CACHE", str(tmp_path / "file"))
    assert scan_sizes(refs, ImageReader())[0].tolist() == EXPECTED
    monkeypatch.setenv("CALOTYPE_CACHE", str(tmp_path / "damaged"))
    (tmp_path / "damaged" / "sizes").mkdir(parents=True)
    (tmp_path / "damaged" / "sizes" / "sizes.sqlite3").write_bytes(b"not a database" * 100)
    assert scan_sizes(refs, ImageReader())[0].tolist() == EXPECTED


def test_several_processes_share_the_memory(refs, tmp_path):
    code = (
        "import sys\nfrom calotype.images import ImageReader, scan_sizes\nfrom calotype.types import ImageRef\n"
        "refs = [ImageRef(name=p, path=p) for p in sys.argv[1:]] * 10\n"
        "sizes, errors = scan_sizes(refs, ImageReader())\nassert not errors and sizes.min() == 20, errors\n"
    )
    command = [sys.executable, "-W", "error", "-c", code, *(ref.path for ref in refs)]
    running = [subprocess.Popen(command, cwd=Path(__file__).parents[2], stderr=subprocess.PIPE) for _ in range(3)]
    for process in running:
        _, complaints = process.communicate(timeout=60)
        assert process.returncode == 0, complaints
        assert b"not cached" not in complaints
    reader = Counting()
    scan_sizes(refs, reader)
    assert reader.asked == 0


def test_a_cache_that_cannot_be_written_is_said_once(refs, tmp_path, monkeypatch, caplog):
    (tmp_path / "taken").write_text("a file where the folder should be")
    monkeypatch.setenv("CALOTYPE_CACHE", str(tmp_path / "taken"))
    for _ in range(2):
        assert scan_sizes(refs, ImageReader())[0].tolist() == EXPECTED
    (record,) = caplog.records
    assert record.getMessage().startswith(f"image sizes are not cached in {tmp_path}/taken/sizes: ")


def test_remembered_errors_hold_no_frames(tmp_path):
    (tmp_path / "bad.jpg").write_bytes(b"\xff\xd8\xff" + bytes(9))
    ref = ImageRef(name="bad.jpg", path=str(tmp_path / "bad.jpg"))
    reader = ImageReader()
    _, [(_, of_sizes)] = scan_sizes([ref], reader)
    [of_contents] = scan_contents([ref], reader)
    for error in (of_sizes, of_contents, reader.examine(ref)):
        assert isinstance(error, ImageError)
        assert str(error).startswith("bad.jpg: ")
        assert (error.__traceback__, error.__cause__, error.__context__) == (None, None, None)
