"""Findings about files, on a folder with everything that goes wrong with files."""

from __future__ import annotations

import csv
import json
import os
import shutil
import tarfile
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from calotype.check.facts import Facts, scan_facts
from calotype.check.files import file_findings
from calotype.check.report import Finding
from calotype.images import ImageReader
from calotype.manifest import load_manifest
from calotype.manifest.exclude import Exclude

pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture
def folder(photos, tmp_path) -> Path:
    """Four good photos with their captions beside them."""
    made = tmp_path / "photos"
    made.mkdir()
    for number in range(4):
        shutil.copy(photos / f"{number:02d}.jpg", made)
        (made / f"{number:02d}.txt").write_text(f"photo {number}")
    return made


def findings(
    path: Path, *, deep: bool = False, missing: str | None = None, **options: Any
) -> tuple[list[Finding], set[int]]:
    manifest = load_manifest(path, on_error="skip", missing_captions="empty")
    facts = scan_facts(manifest.refs(), ImageReader(), deep=deep, threads=2)
    folders = [path] if path.is_dir() else []
    return file_findings(manifest, facts, folders=folders, missing_captions=missing, **options)


def named(found: list[Finding]) -> set[tuple[str, str, str]]:
    return {(one.kind, one.level, one.where) for one in found}


def only(found: list[Finding], kind: str) -> Finding:
    (one,) = (each for each in found if each.kind == kind)
    return one


def test_a_good_folder_has_nothing(folder):
    for deep in (False, True):
        assert findings(folder, deep=deep) == ([], set())


def test_every_problem_is_an_error_with_its_row(folder):
    data = (folder / "00.jpg").read_bytes()
    (folder / "a half.jpg").write_bytes(data[: len(data) // 2])
    (folder / "b empty.jpg").write_bytes(b"")
    (folder / "c page.jpg").write_text("<!DOCTYPE html><html>404 Not Found</html>")
    (folder / "d gone.jpg").symlink_to(folder / "nowhere.jpg")
    for name in ("a half", "b empty", "c page", "d gone"):
        (folder / f"{name}.txt").write_text("a caption")
    found, _ = findings(folder)
    assert named(found) == {
        ("truncated", "error", "a half.jpg"),
        ("empty_file", "error", "b empty.jpg"),
        ("not_an_image", "error", "c page.jpg"),
        ("missing_file", "error", "d gone.jpg"),
    }
    assert "HTML page" in only(found, "not_an_image").detail
    assert "no end marker" in only(found, "truncated").detail


def test_a_cut_that_costs_no_pixel_is_an_error_until_a_deep_look_knows_better(folder):
    Image.open(folder / "00.jpg").save(folder / "e.png")
    (folder / "e.txt").write_text("a caption")
    (folder / "e.png").write_bytes((folder / "e.png").read_bytes()[:-12])
    found, _ = findings(folder)
    assert named(found) == {("truncated", "error", "e.png")}
    found, _ = findings(folder, deep=True)
    assert named(found) == {("truncated", "warning", "e.png")}
    assert "its pixels are all there" in found[0].detail


def test_a_layout_that_nobody_reads_is_an_error(folder, skimage_data):
    shutil.copy(skimage_data / "multipage_rgb.tif", folder)
    (folder / "multipage_rgb.txt").write_text("a caption")
    found, _ = findings(folder)
    assert named(found) == {("unsupported", "error", "multipage_rgb.tif")}


def test_animations_and_pages(folder):
    photos = [Image.open(folder / f"0{n}.jpg").resize((90, 60)) for n in range(3)]
    for name in ("move.gif", "move.webp", "move.tiff", "move.png"):
        photos[0].save(folder / name, save_all=True, append_images=photos[1:])
        (folder / f"{name}.txt").write_text(f"three photos, {name}")
    found, _ = findings(folder)
    assert {(one.kind, one.where, one.detail) for one in found} == {
        ("animated", "move.gif", "3 frames"),
        ("animated", "move.webp", "3 frames"),
        ("animated", "move.png", "3 frames"),
        ("animated", "move.tiff", "3 pages"),
    }


def test_wrong_suffixes(folder):
    photo = Image.open(folder / "00.jpg")
    for name, format in (("w.jpg", "PNG"), ("x.PNG", "WEBP"), ("y.jpeg", "JPEG"), ("z.TIF", "TIFF")):
        photo.save(folder / name, format)
        (folder / name).with_suffix(".txt").write_text(name)
    found, _ = findings(folder)
    assert {(one.kind, one.where, one.detail) for one in found} == {
        ("wrong_suffix", "w.jpg", "it is a PNG, and its name ends in .jpg"),
        ("wrong_suffix", "x.PNG", "it is a WEBP, and its name ends in .png"),
    }


def test_ids_of_a_column_are_no_names(folder, tmp_path):
    Image.open(folder / "00.jpg").save(folder / "w.jpg", "PNG")
    with (folder / "rows.csv").open("w") as file:
        rows = csv.writer(file)
        rows.writerows([("id", "image", "caption"), ("one.png", "01.jpg", "x"), ("two.gif", "w.jpg", "y")])
    found, _ = findings(folder / "rows.csv")
    assert [(one.kind, one.where) for one in found] == [("wrong_suffix", "two.gif")]


def test_what_is_not_read_is_named(folder):
    (folder / "deep").mkdir()
    photo = Image.open(folder / "00.jpg")
    photo.save(folder / "deep" / "photo.jp2", "JPEG2000")
    photo.save(folder / "deep" / "saved as", "PNG")
    photo.save(folder / "photo.jpg_large", "JPEG")
    (folder / "clip.MP4").write_bytes(b"\0\0\0\x20ftypisom")
    (folder / "draft.psd").write_bytes(b"8BPS")
    (folder / "all.zip").write_bytes(b"PK\3\4")
    for name in (".hidden.psd", "readme", "notes.md", "00.npz", "metadata.xml", "Thumbs.db"):
        (folder / name).write_text("nothing to see")
    found, _ = findings(folder)
    assert {(one.kind, one.level) for one in found} == {("unsupported", "warning"), ("archive", "warning")}
    said = {one.where: (one.detail, one.advice) for one in found}
    assert set(said) == {"deep/photo.jp2", "deep/saved as", "photo.jpg_large", "clip.MP4", "draft.psd", "all.zip"}
    assert "PNG image" in said["deep/saved as"][0]
    assert ".jpg_large" in said["photo.jpg_large"][0]
    assert said["photo.jpg_large"][1] == "give it its suffix"
    assert "frames" in said["clip.MP4"][1]
    assert said["draft.psd"][1] == "export it as PNG or JPEG, or move it away"
    assert said["deep/photo.jp2"][1] == "convert it to PNG or JPEG"
    assert "unzip" in said["all.zip"][0]


def test_files_that_fall_between_kinds(folder):
    photo = Image.open(folder / "00.jpg")
    photo.save(folder / "half.jpg.part", "JPEG")
    photo.save(folder / "no suffix", "JPEG")
    (folder / "captions.xlsx").write_bytes(b"PK\3\4")
    (folder / "photo.dng").write_bytes(b"II*\0")
    for name in ("a.xyz", "b.xyz", "README", "LICENSE", "config.yaml"):
        (folder / name).write_text("nothing to see")
    (folder / "_latent_cache").mkdir()
    (folder / "_latent_cache" / "00.safetensors").write_bytes(b"x")
    os.mkfifo(folder / "pipe")
    found, _ = findings(folder)
    assert named(found) == {
        ("unsupported", "warning", "half.jpg.part"),
        ("unsupported", "warning", "no suffix"),
        ("unsupported", "warning", "captions.xlsx"),
        ("unsupported", "warning", "photo.dng"),
        ("unsupported", "warning", "pipe"),
        ("unsupported", "note", "_latent_cache/00.safetensors"),
        ("unsupported", "note", "a.xyz"),
    }
    said = {one.where: one for one in found}
    assert "unfinished" in said["half.jpg.part"].detail and ".csv" in said["captions.xlsx"].advice
    assert "develop" in said["photo.dng"].advice and "pipe" in said["pipe"].detail
    assert said["a.xyz"].others == ("b.xyz",)


def test_companions_links_and_what_is_excluded_are_named(folder):
    for name in ("00-masklabel.png", "masks/01.png", "reg/1_dog/a.jpg", "old/b.jpg", "clip.mp4"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(folder / "00.jpg", folder / name)
    (folder / "gone").symlink_to(folder / "nowhere")
    (folder / "masks" / "loop").symlink_to(folder)
    (folder / "more.tgz").write_bytes(b"packed")
    manifest = load_manifest(folder, on_error="skip", exclude=["old", "*.mp4"])
    facts = scan_facts(manifest.refs(), ImageReader(), deep=False, threads=2)
    exclude = Exclude(["old", "*.mp4"])
    found, _ = file_findings(manifest, facts, folders=[folder], missing_captions="empty", exclude=exclude)
    assert named(found) == {
        ("companion", "warning", "00-masklabel.png"),
        ("companion", "warning", "masks/01.png"),
        ("regularisation", "warning", "reg/1_dog/a.jpg"),
        ("broken_link", "error", "gone"),
        ("link_loop", "note", "masks/loop/"),
        ("archive", "warning", "more.tgz"),
        ("excluded", "note", "old/"),
        ("excluded", "note", "clip.mp4"),
    }


def test_what_is_read_though_it_looks_like_companions_is_a_note(folder):
    (folder / "masks").mkdir()
    for number in range(2):
        shutil.copy(folder / f"0{number}.jpg", folder / "masks")
        (folder / "masks" / f"0{number}.txt").write_text("a photo of a mask")
    found, _ = findings(folder)
    assert [(one.kind, one.level) for one in found] == [("doubtful", "note")]
    assert "2 of 2 images of masks/" in found[0].detail and "exclude" in found[0].detail


# --------------------------------------------------------------------------------------------- captions and images


def test_captions_without_a_picture_and_bad_rows(folder):
    (folder / "lost.txt").write_text("of no image")
    (folder / "03.txt").write_bytes(b"caf\xe9 in Latin-1")
    found, without = findings(folder)
    assert named(found) == {("caption_without_image", "warning", "lost.txt"), ("bad_row", "error", "03.txt")}
    assert without == {3}
    assert "UTF-8" in only(found, "bad_row").detail
    assert only(found, "bad_row").advice == "fix the caption file, or remove it"


def test_advice_fits_what_is_bad(folder, monkeypatch):
    shutil.copy(folder / "00.jpg", os.fsencode(folder) + b"/caf\xe9.jpg")
    (folder / "03.txt").unlink()
    (folder / "03.txt").symlink_to("/dev/zero")
    (folder / "locked").mkdir()
    scandir = os.scandir

    def scan(place):
        if place.endswith("/locked/"):
            raise PermissionError(13, "Permission denied", place)
        return scandir(place)

    monkeypatch.setattr(os, "scandir", scan)
    found, _ = findings(folder)
    assert {(one.where, one.advice) for one in found} == {
        ("03.txt", "fix the caption file, or remove it"),
        ("locked", "check the folder's rights, or exclude it"),
        ("caf\\xe9.jpg", "rename it"),
    }


@pytest.mark.parametrize(
    ("missing", "levels", "then"),
    [
        (None, {"error"}, "training stops there"),
        ("error", {"error"}, "training stops there"),
        ("skip", {"note", "warning"}, "it is left out"),
        ("empty", {"note", "warning"}, "its caption is empty"),
        ("a photo", {"note", "warning"}, "its caption becomes 'a photo'"),
    ],
)
def test_missing_and_blank_captions_are_told_apart(folder, missing, levels, then):
    (folder / "01.txt").unlink()
    (folder / "02.txt").write_text(" \n\n")
    (folder / "03.txt").rename(folder / "03.jpg.caption")
    found, without = findings(folder, missing=missing)
    assert {(one.kind, one.where) for one in found} == {("no_caption", "01.jpg"), ("empty_caption", "02.jpg")}
    assert without == {1, 2}
    assert {one.level for one in found} == levels
    assert all(one.detail.endswith(then) for one in found)
    assert "02.txt" in only(found, "empty_caption").detail
    if missing in (None, "error"):
        assert "missing_captions" in only(found, "no_caption").advice


def test_some_images_without_a_caption_are_a_warning_until_it_is_said_that_they_are_meant(folder):
    (folder / "01.txt").unlink()
    found, _ = findings(folder, implied="trigger")
    assert only(found, "no_caption").level == "warning"
    assert only(found, "no_caption").advice.startswith("missing_captions=empty")
    assert only(found, "no_caption").detail == "it has no caption; the trigger alone is its caption"
    found, _ = findings(folder, missing="empty", implied="template")
    assert only(found, "no_caption").level == "note"
    assert only(found, "no_caption").detail == "it has no caption; the template alone is its caption"


def test_what_lies_beside_every_dataset_is_no_warning(folder):
    """A readme, and the tables that img2dataset writes beside its folders."""
    (folder / "00000").mkdir()
    Image.open(folder / "00.jpg").rotate(90).save(folder / "00000" / "x.jpg")
    for name in ("readme.txt", "00000.parquet", "00000_stats.json", "00000/x.txt"):
        (folder / name).write_text("see here")
    found, _ = findings(folder)
    assert named(found) == {("caption_without_image", "note", "readme.txt")}


def test_rows_of_a_data_file_without_a_caption(folder):
    rows = [{"image": "00.jpg", "text": "x"}, {"image": "01.jpg", "text": " "}, {"image": "02.jpg"}]
    rows += [{"image": "missing.jpg", "text": "y"}, {"text": "no image"}]
    (folder / "rows.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    for file in folder.glob("*.txt"):
        file.unlink()
    found, without = findings(folder / "rows.jsonl")
    assert without == {1, 2}
    assert named(found) == {
        ("no_caption", "error", "01.jpg"),
        ("no_caption", "error", "02.jpg"),
        ("missing_file", "error", "missing.jpg"),
        ("bad_row", "error", "rows.jsonl:5"),
    }


def test_members_of_an_archive(folder, tmp_path):
    (folder / "01.txt").unlink()
    (folder / "alone.txt").write_text("no image")
    Image.open(folder / "02.jpg").save(folder / "02.jpg", "PNG")
    with tarfile.open(tmp_path / "shard.tar", "w") as tar:
        for file in sorted(folder.iterdir()):
            tar.add(file, arcname=file.name)
    found, without = findings(tmp_path / "shard.tar")
    assert {(one.kind, one.where.partition("!")[2]) for one in found} == {
        ("no_caption", "01.jpg"),
        ("wrong_suffix", "02.jpg"),
        ("caption_without_image", "alone.txt"),
    }
    assert without == {1}


def test_pictures_that_share_a_caption_file(folder):
    photo = Image.open(folder / "00.jpg")
    photo.save(folder / "00.png")  # shares 00.txt
    photo.save(folder / "01.png")
    (folder / "01.png.txt").write_text("its own")
    (folder / "sub").mkdir()
    photo.save(folder / "sub" / "02.png")  # the same stem, in another folder
    (folder / "sub" / "02.txt").write_text("photo 2")
    found, _ = findings(folder)
    one = only(found, "same_stem")
    assert (one.where, one.others) == ("00.jpg", ("00.png",))
    assert one.detail == "00.txt is the caption of 2"
    assert len(found) == 1


def test_captions_of_a_metadata_file_are_not_shared_by_files(folder):
    photo = Image.open(folder / "00.jpg")
    photo.save(folder / "00.png")
    lines = [{"file_name": name, "text": f"of {name}"} for name in ("00.jpg", "00.png")]
    (folder / "metadata.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    assert findings(folder) == ([], set())


def test_facts_of_a_url_are_not_judged_by_its_name(folder, tmp_path):
    (tmp_path / "urls.csv").write_text("url,caption\nhttps://example.com/a.png,x\n")
    manifest = load_manifest(tmp_path / "urls.csv", on_error="skip", missing_captions="empty")
    header = ImageReader().header(load_manifest(folder).refs()[0])
    found, _ = file_findings(manifest, [Facts(header=header)], folders=[], missing_captions=None)
    assert found == []
    failed = Facts(header=None, problem=("fetch_failed", "the server answered 404"))
    found, _ = file_findings(manifest, [failed], folders=[], missing_captions=None)
    assert named(found) == {("fetch_failed", "error", "https://example.com/a.png")}


def without_captions(folder: Path) -> Path:
    for file in folder.glob("*.txt"):
        file.rename(file.with_suffix(".tags"))
    return folder


def test_captions_that_are_not_used_are_a_warning_whatever_the_config_says(folder):
    (folder / "00.tags").write_text("1girl")
    (folder / "captions.csv").write_text("image,text\n00.jpg,a\n")
    for options in ({}, {"implied": True}, {"missing": "empty"}):
        found, _ = findings(folder, **options)
        warned = {("unused_captions", "warning", name) for name in ("00.tags", "captions.csv")}
        assert named(found) == warned
    assert "caption_suffix=.tags" in found[0].detail


def test_captions_that_are_not_used_stop_training_where_no_image_has_one(folder):
    without_captions(folder)
    (folder / "no image.txt").write_text("x")
    for missing, level in ((None, "error"), ("error", "error"), ("empty", "warning"), ("skip", "warning")):
        found, _ = findings(folder, missing=missing, implied="trigger")
        assert {one.level for one in found if one.kind in ("unused_captions", "caption_without_image")} == {level}


def test_caption_files_of_several_lines_are_a_warning_until_it_is_said_what_they_are(folder):
    (folder / "00.txt").write_text("1girl, sks\nsks by a window\n")
    rows = [json.dumps({"file_name": "01.jpg", "text": "two\nlines"})]
    (folder / "metadata.jsonl").write_text("\n".join(rows))
    found, _ = findings(folder)
    assert named(found) == {("several_lines", "warning", "")} and found[0].others == ("00.jpg",)
    assert "1 of 4 images" in found[0].detail and "up to 2" in found[0].detail
    assert findings(folder, caption_lines="one") == ([], set())


def test_an_empty_caption_file_is_seen_in_upper_case_too(folder):
    (folder / "00.txt").unlink()
    (folder / "00.TXT").write_text(" ")
    found, rows = findings(folder)
    assert rows == {0} and only(found, "empty_caption").where == "00.jpg"


def test_images_in_none_of_the_splits_are_named(folder):
    for split, numbers in (("train", (0, 1)), ("test", (2,))):
        (folder / split).mkdir()
        for number in numbers:
            for suffix in ("jpg", "txt"):
                (folder / f"{number:02d}.{suffix}").rename(folder / split / f"{number:02d}.{suffix}")
    found, _ = findings(folder)
    assert named(found) == {("no_split", "warning", "03.jpg"), ("other_splits", "note", "")}


def test_members_of_a_shard_that_are_not_used_are_named(folder):
    shard = folder.parent / "s.tar"
    with tarfile.open(shard, "w") as tar:
        for name in ("00.jpg", "00.txt", "01.jpg", "01.txt"):
            tar.add(folder / name, name)
        tar.add(folder / "02.jpg", "00.left.jpg")
        tar.add(folder / "02.txt", "01.cls")
    found, _ = findings(shard)
    assert named(found) == {
        ("companion", "warning", "s.tar!00.left.jpg"),
        ("unused_member", "warning", "s.tar!01.cls"),
    }
