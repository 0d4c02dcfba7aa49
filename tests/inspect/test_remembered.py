"""Whole reports: remembered while nothing changes, and never a moment longer."""

import json
import os
import subprocess
import sys
import time

import pytest

from calotype.inspect.check.remembered import files_state, folders_state, outside, recall, remember, report_key
from calotype.inspect.check.report import (
    CacheCost,
    CaptionFacts,
    PlanFacts,
    RemainderFacts,
    Report,
    TokenFacts,
    finding,
)


def example(**changes):
    policies = tuple(
        RemainderFacts(policy=policy, batches=3, samples=10, left_out=0, repeated=0, short_batches=1)
        for policy in ("short", "repeat", "drop")
    )
    values = {
        "source": "photos",
        "root": "/data/photos",
        "model": "flux.1-dev",
        "made": "2026-01-02T03:04:05+00:00",
        "images": 10,
        "held_out": 0,
        "deep": True,
        "findings": (
            finding("truncated", "a.jpg", "the JPEG ends without its end marker"),
            finding("same_file", "b.jpg", "the same 1,234 bytes", others=("c.jpg", "d.jpg")),
            finding("alpha", "e.png", "may be transparent"),
        ),
        "captions": CaptionFacts(
            captions=10,
            images_without=0,
            images_with_several=0,
            distinct=9,
            characters=(4, 20, 99),
            trigger="sks",
            trigger_in=10,
        ),
        "tokens": (
            TokenFacts(
                option="t5_tokenizer_path",
                key="t5_text_tokens",
                limit=512,
                shortest=4,
                median=30,
                longest=600,
                cut=1,
                histogram=((1, 64, 8), (65, 512, 1), (513, 600, 1)),
            ),
        ),
        "plan": PlanFacts(
            batch_size=4,
            world_size=1,
            remainder="short",
            buckets=((512, 512, 6), (448, 576, 4)),
            samples=10,
            batches=3,
            policies=policies,
        ),
        "cost": (
            CacheCost(level="none", place="", bytes=None, fill_seconds=None, epoch_seconds=1.5, note="measured"),
            CacheCost(
                level="pixel_cache", place="memory", bytes=7_864_320, fill_seconds=1.5, epoch_seconds=0.2, note="m"
            ),
        ),
        "not_checked": ("pictures shared with a validation set",),
    }
    return Report(**(values | changes))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("CALOTYPE_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "photos"
    (folder / "sub").mkdir(parents=True)
    for name in ("a.jpg", "a.txt", "sub/b.jpg"):
        (folder / name).write_text(name)
    return folder


def keep(folder, key="k", files=()):
    remember(
        key,
        example(),
        folders=[str(folder)],
        folders_were=folders_state([str(folder)]),
        files=[str(file) for file in files],
        files_were=files_state([str(file) for file in files]),
    )


def test_a_report_survives_json():
    report = example()
    assert Report.from_json(json.loads(json.dumps(report.to_json()))) == report


def test_a_report_counts_and_judges():
    document = example().to_json()
    assert (document["clean"], document["errors"], document["warnings"], document["notes"]) == (False, 1, 1, 1)
    assert example(findings=(finding("alpha", "e.png", "may be transparent"),)).clean
    assert not example(findings=(finding("cropped", "e.png", "31 %"),)).clean


def test_unchanged_it_comes_back(folder):
    assert recall("k") is None
    keep(folder)
    assert recall("k") == example()
    assert recall("another") is None


def edit(folder):
    (folder / "a.txt").write_text("another caption")


def touch(folder):
    os.utime(folder / "sub" / "b.jpg", ns=(1, 1))


def add(folder):
    (folder / "sub" / "new.jpg").write_text("")


def remove(folder):
    (folder / "a.txt").unlink()


def rename(folder):
    (folder / "a.txt").rename(folder / "c.txt")


def move_all(folder):
    folder.rename(folder.with_name("elsewhere"))


@pytest.mark.parametrize("change", [edit, touch, add, remove, rename, move_all])
def test_any_change_in_the_folder_makes_it_stale(folder, change):
    keep(folder)
    change(folder)
    assert recall("k") is None


def test_files_outside_are_watched_too(folder, tmp_path):
    far = tmp_path / "far.jpg"
    far.write_text("x")
    keep(folder, files=[far])
    assert recall("k") == example()
    far.write_text("xy")
    assert recall("k") is None
    far.unlink()
    assert recall("k") is None


def test_a_change_while_it_was_made_counts_as_one(folder):
    before = folders_state([str(folder)])
    edit(folder)
    remember("k", example(), folders=[str(folder)], folders_were=before, files=[], files_were=files_state([]))
    assert recall("k") is None


def test_a_loop_of_links_and_a_broken_one_are_no_trouble(folder):
    (folder / "sub" / "up").symlink_to(folder, target_is_directory=True)
    (folder / "broken").symlink_to(folder / "nowhere")
    keep(folder)
    assert recall("k") == example()


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"folders": 3}', '{"report": {}}'])
def test_a_damaged_memory_costs_only_the_memory(folder, damage, tmp_path):
    keep(folder)
    (tmp_path / "cache" / "reports" / "k.json").write_text(damage)
    assert recall("k") is None
    keep(folder)
    assert recall("k") == example()


def test_a_cache_that_cannot_be_written_is_no_error(folder, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CALOTYPE_CACHE", str(tmp_path / "file" / "below"))
    keep(folder)
    assert recall("k") is None


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


def test_outside():
    paths = ["/a/b.jpg", "/a/c/d.jpg", "/ab/e.jpg", "/f.jpg", "/f.jpg"]
    assert outside(paths, ["/a"]) == ("/ab/e.jpg", "/f.jpg")
    assert outside(paths, ["/a/"]) == ("/ab/e.jpg", "/f.jpg")
    assert outside(paths, []) == ("/a/b.jpg", "/a/c/d.jpg", "/ab/e.jpg", "/f.jpg")


def test_recalling_loads_nothing_heavy():
    code = (
        "import sys, calotype.check, calotype.inspect.check.show; "
        "print([m for m in ('torch', 'numpy', 'pyarrow', 'PIL') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"
