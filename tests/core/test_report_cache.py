"""Whole reports: remembered while nothing changes, and never a moment longer."""

import os
import subprocess
import sys
import time

import pytest

from calotype.core.report_cache import (
    code_state,
    files_state,
    folders_state,
    load_report,
    outside,
    report_key,
    save_report,
)

EXAMPLE = {"images": 10, "findings": [{"kind": "truncated", "where": "a.jpg"}], "made": None}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("CALOTYPE_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "photos"
    (folder / "sub").mkdir(parents=True)
    for name in ("a.jpg", "a.txt", "sub/b.jpg"):
        (folder / name).write_text(name)
    return folder


def keep(folder, key="k", files=()):
    save_report(
        "reports",
        key,
        EXAMPLE,
        folders=[str(folder)],
        folders_were=folders_state([str(folder)]),
        files=[str(file) for file in files],
        files_were=files_state([str(file) for file in files]),
    )


def test_unchanged_it_comes_back(folder):
    assert load_report("reports", "k") is None
    keep(folder)
    assert load_report("reports", "k") == EXAMPLE
    assert load_report("reports", "another") is None


def edit(folder):
    (folder / "a.txt").write_text("another caption")


def touch(folder):
    os.utime(folder / "sub" / "b.jpg", ns=(1, 1))


def replace_in_disguise(folder):
    before = (folder / "a.jpg").stat()
    (folder / "a.jpg").write_text("b.jpg")
    os.utime(folder / "a.jpg", ns=(before.st_atime_ns, before.st_mtime_ns))


def add(folder):
    (folder / "sub" / "new.jpg").write_text("")


def remove(folder):
    (folder / "a.txt").unlink()


def rename(folder):
    (folder / "a.txt").rename(folder / "c.txt")


def move_all(folder):
    folder.rename(folder.with_name("elsewhere"))


@pytest.mark.parametrize("change", [edit, touch, replace_in_disguise, add, remove, rename, move_all])
def test_any_change_in_the_folder_makes_it_stale(folder, change):
    keep(folder)
    change(folder)
    assert load_report("reports", "k") is None


def test_files_outside_are_watched_too(folder, tmp_path):
    far = tmp_path / "far.jpg"
    far.write_text("x")
    keep(folder, files=[far])
    assert load_report("reports", "k") == EXAMPLE
    far.write_text("xy")
    assert load_report("reports", "k") is None
    far.unlink()
    assert load_report("reports", "k") is None


def test_a_change_while_it_was_made_counts_as_one(folder):
    before = folders_state([str(folder)])
    edit(folder)
    save_report(
        "reports", "k", EXAMPLE, folders=[str(folder)], folders_were=before, files=[], files_were=files_state([])
    )
    assert load_report("reports", "k") is None


def test_a_loop_of_links_and_a_broken_one_are_no_trouble(folder):
    (folder / "sub" / "up").symlink_to(folder, target_is_directory=True)
    (folder / "broken").symlink_to(folder / "nowhere")
    keep(folder)
    assert load_report("reports", "k") == EXAMPLE


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"folders": 3}', '{"report": {}}'])
def test_a_damaged_memory_costs_only_the_memory(folder, damage, tmp_path):
    keep(folder)
    (tmp_path / "cache" / "reports" / "k.json").write_text(damage)
    assert load_report("reports", "k") is None
    keep(folder)
    assert load_report("reports", "k") == EXAMPLE


def test_a_cache_that_cannot_be_written_is_no_error(folder, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CALOTYPE_CACHE", str(tmp_path / "file" / "below"))
    keep(folder)
    assert load_report("reports", "k") is None


def test_the_newest_fifty_are_kept(folder, tmp_path):
    reports = tmp_path / "cache" / "reports"
    for number in range(53):
        keep(folder, key=f"k{number}")
        past = time.time() - 1000 + number
        os.utime(reports / f"k{number}.json", (past, past))
    keep(folder, key="last")
    names = {path.stem for path in reports.glob("*")}
    assert len(names) == 50 and "k52" in names and "k0" not in names


def test_the_key_follows_config_and_options():
    config = {"dataset": {"path": "photos", "resolution": 512}}
    assert report_key(config, deep=None) == report_key(dict(config), deep=None)
    others = [
        report_key({"dataset": {"path": "photos", "resolution": 1024}}, deep=None),
        report_key(config, deep=True),
        report_key(config, deep=None, world_size=2),
    ]
    assert len({report_key(config, deep=None), *others}) == 4


def test_other_code_is_another_key(monkeypatch, tmp_path):
    was = code_state()
    assert code_state() == was
    code = tmp_path / "calotype"
    code.mkdir()
    (code / "check.py").write_text("one")
    monkeypatch.setattr("calotype.core.report_cache.__file__", str(code / "core" / "report_cache.py"))
    other = code_state()
    (code / "check.py").write_text("other")
    assert len({was, other, code_state()}) == 3


def test_outside():
    paths = ["/a/b.jpg", "/a/c/d.jpg", "/ab/e.jpg", "/f.jpg", "/f.jpg"]
    assert outside(paths, ["/a"]) == ("/ab/e.jpg", "/f.jpg")
    assert outside(paths, ["/a/"]) == ("/ab/e.jpg", "/f.jpg")
    assert outside(paths, []) == ("/a/b.jpg", "/a/c/d.jpg", "/ab/e.jpg", "/f.jpg")


def test_recalling_loads_nothing_heavy():
    code = (
        "import sys, calotype.check.command, calotype.check.show; "
        "print([m for m in ('torch', 'numpy', 'pyarrow', 'PIL') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"
