"""A report as people and scripts get it: lines, tables, the fix list."""

import io
import json
import re
from dataclasses import replace

import pytest
from report_examples import example
from rich.console import Console

from calotype.check.fix_list import write_fix_list
from calotype.check.kinds import KINDS
from calotype.check.report import CacheCost, Report, finding
from calotype.check.show import lines, print_report


def printed(report, width=100):
    out = io.StringIO()
    print_report(report, Console(file=out, width=width, force_terminal=False))
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines())


def test_a_line_for_every_finding_with_all_that_is_known():
    report = example()
    got = list(lines(report))
    assert got[0].startswith("checked: photos for flux.1-dev: 10 images, every image decoded")
    assert got[1] == (
        "error: truncated: a.jpg: the JPEG ends without its end marker (copy or download the image again, or remove it)"
    )
    assert got[2] == "warning: same_file: b.jpg: the same 1,234 bytes; with c.jpg, d.jpg (remove all but one)"
    assert got[-1] == "result: 1 error, 1 warning, 1 note"
    text = "\n".join(got)
    assert "tokens: t5_text_tokens: 513-600: 1" in text
    assert "buckets (width×height: images)  512×512: 6  576×448: 4" in text
    assert "remainder=drop: 2 batches" in text
    assert "cost: pixel_cache: 7.9 MB memory, 1.5 s to fill, 0.2 s an epoch: m" in text
    assert "not checked: images shared with a validation set" in text


def test_lines_stay_single_whatever_a_name_holds():
    report = example(findings=(finding("bad_row", "a\nb.jpg", "two\nlines"),))
    assert [line for line in lines(report) if line.startswith("error")] == [
        r"error: bad_row: a\nb.jpg: two\nlines (fix the row in the data file)"
    ]


def test_a_terminal_gets_a_few_of_each_kind_and_the_number():
    found = tuple(finding("cropped", f"{n:03d}.jpg", f"{20 + n} % of its area") for n in range(40))
    text = printed(example(findings=found))
    assert "Much of the image is cropped away  40" in text
    assert "000.jpg" in text and "005.jpg" not in text and "35 more" in text
    assert text.count(KINDS["cropped"].advice) == 1


def test_what_is_the_same_of_several_files_is_said_once():
    found = tuple(finding("no_caption", f"{n:03d}.jpg", "it has no caption") for n in range(30))
    text = printed(example(findings=found), width=80)
    assert text.count("it has no caption") == 1 and text.count(KINDS["no_caption"].advice) == 1
    assert "000.jpg, 001.jpg" in text and "019.jpg and 10 more" in text.replace("\n  ", " ")


@pytest.mark.parametrize("width", [60, 80])
def test_a_narrow_terminal_wraps_between_things(width):
    buckets = tuple((512 + 64 * n, 1024 - 64 * n, 1000 - n) for n in range(9))
    report = example(plan=replace(example().plan, buckets=buckets))
    text = printed(report, width=width)
    assert max(map(len, text.splitlines())) <= width
    assert all(f"{w}×{h}: {count:,}" in text for h, w, count in buckets)
    checked = [line for line in text.splitlines() if line.startswith("Checked")]
    assert checked[0].startswith("Checked  photos for flux.1-dev: 10 images")
    (after,) = re.findall(r"^Checked .*\n(.*)", text, re.MULTILINE)
    assert after.startswith(" " * 9)


def test_at_most_a_screen_of_any_list():
    others = tuple(f"{n}.jpg" for n in range(500))
    buckets = tuple((64, 64 * n, 1000 - n) for n in range(1, 60))
    plan = replace(example().plan, buckets=buckets)
    report = example(findings=(finding("same_file", "b.jpg", "the same", others=others),), plan=plan)
    for text in ("\n".join(lines(report)), printed(report, width=10_000)):
        assert "and 39 more" in text and "500.jpg" not in text
        assert "and 480 more" in text or "and 495 more" in text


def test_no_figures_where_there_is_nothing_to_measure():
    nothing = {"place": "disk", "bytes": None, "fill_seconds": None, "epoch_seconds": None}
    levels = (
        CacheCost(level="downloads", note="no image is remote", **nothing | {"bytes": 0, "fill_seconds": 0.0}),
        CacheCost(level="encodings", note="depends on the model: --model says which", **nothing),
    )
    same = tuple(replace(policy, policy=name) for name in ("short", "drop") for policy in example().plan.policies[:1])
    report = example(cost=levels, plan=replace(example().plan, policies=same))
    for text in ("\n".join(lines(report)), printed(report, width=80)):
        assert "encodings: depends on the model" in text
        assert "–" not in text.partition("ost")[2] and "downloads" not in text
        assert "left out" not in text  # the policies do not differ


def test_a_histogram_only_where_something_is_cut():
    (tokens,) = example().tokens
    assert "65–512" in printed(example())
    assert "65–512" not in printed(example(tokens=(replace(tokens, cut=0),)))


def test_markup_in_names_is_text():
    text = printed(example(findings=(finding("bad_row", "[bold]x[/bold].jpg", "[red]not[/] a colour"),)))
    assert "[bold]x[/bold].jpg" in text and "[red]not[/] a colour" in text


@pytest.mark.parametrize("width", [40, 80, 200])
def test_any_width_of_terminal(width):
    text = printed(example(), width=width)
    assert max(map(len, text.splitlines())) <= width
    assert "1 error, 1 warning, 1 note" in text


def test_a_terminal_sees_what_is_cut_and_which_policy_is_chosen():
    rows = [line.split() for line in printed(example()).splitlines()]
    assert ["513–600", "1", "████", "cut"] in rows
    assert ["short", "(chosen)", "3", "10", "0", "0", "1"] in rows and ["drop", "2", "8", "2", "0", "0"] in rows


def test_what_concerns_the_whole_dataset_has_no_name_before_it():
    text = printed(example(findings=(finding("no_batches", "", "no bucket has the 8 samples of a step"),)))
    assert "\n  no bucket has the 8 samples of a step\n  → lower batch_size" in text


def test_a_clean_report_says_so():
    assert list(lines(example(findings=())))[-1] == "result: clean"
    assert "clean (1 note)" in printed(example(findings=(finding("alpha", "e.png", "may be"),)))


def test_the_fix_list_names_real_files(tmp_path):
    (tmp_path / "a.jpg").write_text("x")
    found = (
        finding("truncated", "a.jpg", "cut\tin half"),
        finding("same_file", "b.jpg", "the same", others=("c.jpg", "d.jpg")),
        finding("trigger_missing", "", "'sks' is in 1 of 2", others=("f.jpg",)),
        finding("leak", "g.jpg", "the same file", others=("val/h.jpg",)),
        finding("alpha", "e.png", "a note is nothing to fix"),
        finding("no_batches", "", "about the config"),
    )
    file = tmp_path / "out" / "fix.tsv"
    assert write_fix_list(example(root=str(tmp_path), findings=found), file) == 6
    rows = [line.split("\t") for line in file.read_text().splitlines()]
    assert [row[0] for row in rows] == [str(tmp_path / "a.jpg"), "c.jpg", "d.jpg", "f.jpg", "g.jpg", "val/h.jpg"]
    assert rows[0][1:4] == ["truncated", "error", r"cut\tin half"]
    assert all(len(row) == 5 for row in rows)


def test_the_fix_list_as_json(tmp_path):
    file = tmp_path / "fix.jsonl"
    write_fix_list(example(), file)
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert [(row["path"], row["kind"]) for row in rows] == [
        ("a.jpg", "truncated"),
        ("c.jpg", "same_file"),
        ("d.jpg", "same_file"),
    ]
    assert set(rows[0]) == {"path", "kind", "level", "detail", "advice"}
    assert list(tmp_path.iterdir()) == [file]


def test_a_report_survives_json():
    report = example()
    assert Report.from_json(json.loads(json.dumps(report.to_json()))) == report


def test_a_report_counts_and_judges():
    document = example().to_json()
    assert (document["clean"], document["errors"], document["warnings"], document["notes"]) == (False, 1, 1, 1)
    assert example(findings=(finding("alpha", "e.png", "may be transparent"),)).clean
    assert not example(findings=(finding("cropped", "e.png", "31 %"),)).clean


def test_a_fix_list_names_files_as_they_are(tmp_path):
    report = example(findings=(finding("truncated", "a  b\t\x1b\udcff.jpg", "two\nlines"),))
    write_fix_list(report, tmp_path / "fix.tsv")
    assert (tmp_path / "fix.tsv").read_text().split("\t")[0] == r"a  b\t\x1b\udcff.jpg"
    write_fix_list(report, tmp_path / "fix.jsonl")
    assert json.loads((tmp_path / "fix.jsonl").read_text())["path"] == "a  b\t\x1b\udcff.jpg"
