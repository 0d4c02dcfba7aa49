"""Runs that are cut off and go on, and destinations that are left alone."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
from convert_helpers import convert, facts, load

from calotype.convert import FORMS, plan_conversion, run, run_conversion, verify_conversion
from calotype.errors import ConfigError, ConvertError, ImageError
from calotype.images import ImageReader


class Stopping(ImageReader):
    """Is interrupted at the fourth image."""

    def read_bytes(self, ref):
        if "10_sks" in ref.name:
            raise KeyboardInterrupt
        return super().read_bytes(ref)


class Counting(ImageReader):
    def __init__(self):
        super().__init__()
        self.read = []

    def read_bytes(self, ref):
        self.read.append(ref.name)
        return super().read_bytes(ref)


@pytest.fixture
def small_parts(monkeypatch):
    monkeypatch.setattr(run, "_PART_ROWS", 1)


@pytest.mark.parametrize("to", FORMS)
def test_an_interrupted_run_resumes(source, tmp_path, small_parts, to):
    images = "copy" if "copy" in FORMS[to].images and "embed" not in FORMS[to].images else None
    plan = plan_conversion(load(source), tmp_path / "out", to=to, images=images, shard_size=1)
    with pytest.raises(KeyboardInterrupt):
        run_conversion(plan, reader=Stopping())
    assert not (tmp_path / "out").exists()
    assert [entry.name for entry in tmp_path.iterdir()] == [".out.converting"]
    reader = Counting()
    report = run_conversion(plan, reader=reader)
    assert report.resumed == 2 and report.rows == 5  # the third was being written
    assert not {"a.png", "a.jpg"} & set(reader.read)
    assert facts(load(tmp_path / "out", to)) == facts(load(source))
    assert [entry.name for entry in tmp_path.iterdir()] == ["out"]


SLOW = """
import sys, time
from convert_helpers import load
from calotype.convert import plan_conversion, run, run_conversion
from calotype.images import ImageReader
class Slow(ImageReader):
    def read_bytes(self, ref):
        time.sleep(60 if "10_sks" in ref.name else 0)
        return super().read_bytes(ref)
run._PART_ROWS = 1
run_conversion(plan_conversion(load(sys.argv[1]), sys.argv[2], to=sys.argv[3], shard_size=1), reader=Slow())
"""


@pytest.mark.parametrize("to", ["imagefolder", "webdataset", "lmdb"])
def test_a_killed_run_resumes(source, tmp_path, small_parts, to):
    out = tmp_path / "out"
    path = os.pathsep.join(sys.path)
    child = subprocess.Popen([sys.executable, "-c", SLOW, source, out, to], env=os.environ | {"PYTHONPATH": path})
    state = tmp_path / ".out.converting" / "state.jsonl"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not (state.exists() and state.read_text().count("\n") == 3):
        time.sleep(0.05)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert not out.exists()
    with state.open("a") as file:
        file.write('{"first": 2, "end"')  # a line that a kill cut off
    plan = plan_conversion(load(source), out, to=to, shard_size=1)
    assert run_conversion(plan).resumed == 2
    assert facts(load(out, to)) == facts(load(source))
    assert verify_conversion(plan).differences == ()


def test_what_an_earlier_run_wrote_is_read_again(source, tmp_path, small_parts):
    plan = plan_conversion(load(source), tmp_path / "out", to="webdataset", shard_size=1)
    with pytest.raises(KeyboardInterrupt):
        run_conversion(plan, reader=Stopping())
    shard = tmp_path / ".out.converting" / "result" / "shard-000001.tar"
    data = bytearray(shard.read_bytes())
    data[600] ^= 1
    shard.write_bytes(data)
    assert run_conversion(plan).resumed == 1
    assert facts(load(tmp_path / "out", "webdataset")) == facts(load(source))


def test_what_was_not_finished_leaves_nothing_behind(source, tmp_path, small_parts):
    plan = plan_conversion(load(source), tmp_path / "out", to="imagefolder")
    with pytest.raises(KeyboardInterrupt):
        run_conversion(plan, reader=Stopping())
    stray = tmp_path / ".out.converting" / "result" / "half written.jpg"
    stray.write_bytes(b"\xff\xd8")
    run_conversion(plan)
    assert not (tmp_path / "out" / stray.name).exists()


def test_a_run_that_was_killed_while_clearing_up(source, tmp_path):
    plan = convert(source, tmp_path / "out", "imagefolder")
    work = tmp_path / ".out.converting"
    work.mkdir()
    part = {"first": 0, "end": 5, "bytes": 1, "digest": "", "names": {}, "failed": {}}
    lines = [{"calotype_convert": 1, "key": plan.key}, part, {"done": True}]
    (work / "state.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert run_conversion(plan).resumed == 5
    assert not work.exists() and facts(load(tmp_path / "out")) == facts(load(source))


def test_a_disk_that_gives_back_other_bytes_is_noticed(source, tmp_path, monkeypatch):
    monkeypatch.setattr(type(FORMS["jsonl"]), "read_part", lambda *args: iter([b"other"] * 5))
    with pytest.raises(ConvertError, match="differs from what was written"):
        run_conversion(plan_conversion(load(source), tmp_path / "out", to="jsonl", images="copy"))
    assert not (tmp_path / "out").exists()


def test_nothing_is_written_over(source, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    plan = plan_conversion(load(source), tmp_path / "out", to="imagefolder")
    with pytest.raises(ConfigError, match="exists, and is never overwritten"):
        run_conversion(plan)
    assert sorted(entry.name for entry in tmp_path.rglob("*")) == ["mine.txt", "out"]
    (tmp_path / "out" / "mine.txt").unlink()
    run_conversion(plan)  # an empty folder is as good as none
    with pytest.raises(ConfigError, match="exists, and is never overwritten"):
        run_conversion(plan)


def test_another_conversion_does_not_go_on_with_the_first(source, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run_conversion(plan_conversion(load(source), tmp_path / "out", to="imagefolder"), reader=Stopping())
    with pytest.raises(ConfigError, match="unfinished conversion"):
        run_conversion(plan_conversion(load(source), tmp_path / "out", to="kohya"))


def test_a_source_that_changed_meanwhile_is_told(source, tmp_path):
    photos = shutil.copytree(source, tmp_path / "photos")
    with pytest.raises(KeyboardInterrupt):
        run_conversion(plan_conversion(load(photos), tmp_path / "out", to="hf"), reader=Stopping())
    (photos / "a.png").write_bytes((photos / "a.jpg").read_bytes())
    with pytest.raises(ConfigError, match="an older version"):
        run_conversion(plan_conversion(load(photos), tmp_path / "out", to="hf"))


def test_one_at_a_time(source, tmp_path):
    plan = plan_conversion(load(source), tmp_path / "out", to="imagefolder")

    class Greedy(ImageReader):
        def read_bytes(self, ref):
            with pytest.raises(ConfigError, match="another process"):
                run_conversion(plan)
            return super().read_bytes(ref)

    run_conversion(plan, reader=Greedy())


def test_not_into_the_source(source):
    with pytest.raises(ConfigError, match="is in the source"):
        plan_conversion(load(source), source / "out", to="imagefolder")
    with pytest.raises(ConfigError, match="is in the source"):
        plan_conversion(load(source), source, to="parquet")


class Broken(ImageReader):
    def read_bytes(self, ref):
        if ref.name in self.broken:
            raise ImageError(ref.name, "gone")
        return super().read_bytes(ref)


def broken(*names):
    reader = Broken()
    reader.broken = names
    return reader


@pytest.mark.parametrize("to", ["imagefolder", "webdataset", "hf"])
@pytest.mark.parametrize("names", [("a.png",), ("10_sks dog/a.jpg", "x.y/b.c.webp")], ids=["first", "last"])
def test_images_that_cannot_be_had(source, tmp_path, small_parts, to, names):
    plan = plan_conversion(load(source), tmp_path / "out", to=to, shard_size=1)
    with pytest.raises(ConvertError, match=r"gone.*--skip"):
        run_conversion(plan, reader=broken(*names))
    report = run_conversion(plan, reader=broken(*names), on_error="skip")
    expected = [row for row in load(source) if row.image.name not in names]
    assert list(report.failed.values()) == [f"{name}: gone" for name in names] and report.rows == len(expected)
    assert load(tmp_path / "out", to).ids.to_pylist() == [row.id for row in expected]
    assert [found.what for found in verify_conversion(plan).differences] == ["missing"] * len(names)


def test_no_image_at_all(source, tmp_path):
    plan = plan_conversion(load(source), tmp_path / "out", to="lmdb")
    with pytest.raises(ConvertError, match="no image can be read"):
        run_conversion(plan, reader=broken(*(ref.name for ref in load(source).refs())), on_error="skip")


def test_a_full_disk_is_noticed_before(source, tmp_path, monkeypatch):
    usage = run.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(run.shutil, "disk_usage", lambda place: usage._replace(free=10))
    with pytest.raises(ConvertError, match="10 B free"):
        run_conversion(plan_conversion(load(source), tmp_path / "out", to="imagefolder"))


@pytest.mark.parametrize(("name", "reason"), [("x" * 300, "File name too long"), ("a\0b", "it has a null byte")])
def test_a_destination_that_no_disk_can_hold(source, tmp_path, name, reason):
    with pytest.raises(ConfigError) as raised:
        plan_conversion(load(source), tmp_path / name, to="jsonl")
    assert str(raised.value) == f"destination: {tmp_path / name} can't be written: {reason}"
