"""Disks that are full and places that are forbidden: one line, and what was there is whole."""

import json
import os
import resource
import stat
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from calotype.cli import main
from calotype.convert import plan_conversion, run_conversion
from calotype.core.output_files import write_output
from calotype.errors import ConfigError, ConvertError
from calotype.manifest import load_manifest


@contextmanager
def room_for(size):
    """No file grows beyond so many bytes: the kernel refuses what is written, as it does on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture
def run(monkeypatch, capsys):
    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["calotype", *map(str, arguments)])
        status = 0
        try:
            main()
        except SystemExit as exit:
            status = exit.code or 0
        return status, capsys.readouterr().err.splitlines()

    return run


def test_a_file_is_there_whole_or_as_it_was(tmp_path):
    file = tmp_path / "sub" / "page.html"
    write_output(file, "old")
    file.chmod(0o640)
    with room_for(4096), pytest.raises(ConfigError, match=r"page\.html: can't be written: File too large"):
        write_output(file, "x" * 10_000)
    assert file.read_text() == "old" and [one.name for one in file.parent.iterdir()] == ["page.html"]
    write_output(file, b"new")
    assert file.read_text() == "new" and stat.S_IMODE(file.stat().st_mode) == 0o640


def test_it_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    events, fsync, replace = [], os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda file: (events.append("flushed"), fsync(file)))
    monkeypatch.setattr(Path, "replace", lambda path, to: (events.append("renamed"), replace(path, to)))
    write_output(tmp_path / "page.html", "new")
    assert events == ["flushed", "renamed", "flushed"]  # the file, then its folder


def test_a_link_stays_a_link_and_a_pipe_a_pipe(tmp_path):
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to("real")
    write_output(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "real").read_text() == "new"
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    write_output(tmp_path / "pipe", "through")
    assert os.read(reader, 99) == b"through" and stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)
    os.close(reader)


@pytest.mark.parametrize("name", ["page.html", "sheet.png"])
def test_a_preview_that_has_no_room_leaves_the_old_page(photos, tmp_path, run, name):
    page = tmp_path / name
    page.write_text("the old page")
    arguments = ("preview", photos, "resolution=64", "--batches", "1", "-o", page)
    with room_for(4096):
        status, lines = run(*arguments)
    assert (status, page.read_text()) == (1, "the old page")
    assert lines == [f"calotype: {page}: can't be written: File too large"]
    assert [one.name for one in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize(
    "arguments",
    [
        ("preview", "PHOTOS", "resolution=64", "--batches", "1", "-o", "/proc/x.html"),
        ("check", "PHOTOS", "resolution=64", "--fix-list", "/proc/no/x.txt"),
        ("init", "PHOTOS", "--model", "sdxl", "--trigger", "ohwx", "-o", "/proc/x.yaml"),
        ("convert", "PHOTOS", "/proc/x", "--to", "jsonl"),
        ("caption", "/proc/self/mem", "--url", "http://127.0.0.1:9/v1"),
        ("demo", "/proc/x"),
        ("info", "PHOTOS/" + "x" * 300),
    ],
    ids=lambda arguments: arguments[0],
)
def test_a_forbidden_place_is_one_line(photos, run, arguments):
    status, lines = run(*(one.replace("PHOTOS", str(photos)) for one in arguments))
    assert status in (1, 2) and len(lines) == 1 and lines[0].startswith("calotype: "), lines


@pytest.mark.parametrize("to", ["imagefolder", "jsonl", "csv", "parquet", "webdataset", "lmdb", "kohya", "hf"])
def test_a_conversion_without_room_is_one_error_and_goes_on_later(photos, tmp_path, to):
    plan = plan_conversion(
        load_manifest(photos), tmp_path / "out", to=to, images="copy" if to in ("jsonl", "csv") else None
    )
    with room_for(20_000), pytest.raises(ConvertError, match=r"out: can't be written: .*(too large|mdb_)"):
        run_conversion(plan, lossy=True)
    assert not (tmp_path / "out").exists()
    assert run_conversion(plan, lossy=True).rows == 12
    assert len(load_manifest(tmp_path / "out")) == 12


def test_notes_of_a_conversion_that_are_damaged_are_named(photos, tmp_path):
    plan = plan_conversion(load_manifest(photos), tmp_path / "out", to="jsonl", images="copy")
    with room_for(20_000), pytest.raises(ConvertError):
        run_conversion(plan)
    (state,) = (one for one in (tmp_path / ".out.converting").iterdir() if one.is_file())
    for text in ("{\n", "[]\n", json.dumps({"key": 1}) + "\n7\n", "[" * 100_000 + "\n"):
        state.write_text(text)
        with pytest.raises(ConfigError, match=r"\.out\.converting.*delete that folder"):
            run_conversion(plan)
