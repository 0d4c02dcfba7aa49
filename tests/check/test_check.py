"""`check` as a whole: a folder with everything wrong in it, through the command and from Python."""

import json
import os
import re
import shutil
import signal
import sqlite3
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from command import calotype
from PIL import Image, ImageCms
from real_tokenizers import flux_pipeline

COMMAND = Path(sys.executable).parent / "calotype"


def run(*arguments, code=0, **env):
    out, err = calotype("check", *arguments, code=code, **env)
    return SimpleNamespace(stdout=out, stderr=err)


def report(*arguments, code=0, **env):
    return json.loads(run(*arguments, "--json", code=code, **env).stdout.splitlines()[-1])


def kinds(document):
    """Kind → the rows it is about."""
    found = {}
    for one in document["findings"]:
        found.setdefault(one["kind"], []).append(one["where"])
    return found


def bomb(width, height):
    """A PNG of a hundred bytes that announces a great many pixels."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = (chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(bytes(100))), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.fixture(scope="module")
def good(tmp_path_factory, skimage_data):
    """Eight different photos with captions of their own: nothing to complain of at 256 px."""
    folder = tmp_path_factory.mktemp("good")
    names = ["astronaut", "chelsea", "coffee", "rocket", "hubble_deep_field", "motorcycle_left", "retina", "ihc"]
    for number, name in enumerate(names):
        (source,) = skimage_data.glob(f"{name}.*")
        with Image.open(source) as image:
            picture = image.convert("RGB")
        side = min(picture.size)
        picture.crop((0, 0, side, side)).resize((320, 320)).save(folder / f"{name}.jpg", quality=92)
        (folder / f"{name}.txt").write_text(f"sks, photograph {number} of a {name.replace('_', ' ')}")
    return folder


@pytest.fixture(scope="module")
def bad(tmp_path_factory, good, skimage_data):
    """The same with one of everything that is wrong with datasets."""
    folder = tmp_path_factory.mktemp("bad") / "set"
    shutil.copytree(good, folder)
    photo = Image.open(skimage_data / "coffee.png").convert("RGB").resize((400, 300))

    def caption(name, text):
        (folder / name).write_text(text)

    data = (folder / "astronaut.jpg").read_bytes()
    (folder / "cut.jpg").write_bytes(data[: len(data) // 2])
    (folder / "nothing.jpg").write_bytes(b"")
    (folder / "page.jpg").write_text("<!doctype html><title>404</title>")
    (folder / "bomb.png").write_bytes(bomb(60_000, 60_000))
    shutil.copy(folder / "chelsea.jpg", folder / "copy.jpg")
    Image.open(folder / "coffee.jpg").save(folder / "again.png")
    Image.open(folder / "rocket.jpg").resize((300, 300)).save(folder / "nearly.jpg", quality=70)
    photo.crop((0, 0, 90, 90)).save(folder / "tiny.jpg")
    photo.crop((0, 0, 400, 60)).resize((2000, 300)).save(folder / "long.jpg")
    exif = Image.Exif()
    exif[0x0112] = 6
    photo.rotate(33, expand=True).save(folder / "turned.jpg", exif=exif)
    clear = photo.copy()
    clear.putalpha(128)
    clear.crop((50, 0, 350, 300)).transpose(Image.Transpose.ROTATE_90).save(folder / "clear.png")
    photo.convert("CMYK").crop((0, 0, 290, 290)).transpose(Image.Transpose.ROTATE_180).save(folder / "print.jpg")
    wide = np.asarray(photo.convert("L"), np.uint16)[:, 60:360] * 257
    Image.fromarray(np.ascontiguousarray(wide[::-1])).save(folder / "deep.png")
    frames = [photo.crop((n, 10, n + 280, 290)) for n in (0, 40)]
    frames[0].transpose(Image.Transpose.TRANSPOSE).save(folder / "moving.gif", save_all=True, append_images=frames[1:])
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
    other = bytearray(lab.tobytes())
    at = other.index(b"rXYZ", 128 + 4)
    offset = int.from_bytes(other[at + 4 : at + 8])
    other[offset + 8 : offset + 12] = int(0.6 * 65536).to_bytes(4)
    photo.crop((100, 0, 400, 300)).save(folder / "profile.jpg", icc_profile=bytes(other))
    for name in ("cut", "nothing", "page", "bomb", "copy", "again", "nearly", "tiny", "long", "turned", "clear"):
        caption(f"{name}.txt", f"sks, the {name} one")
    caption("print.txt", "I'm sorry, but I can't describe this image.")
    caption("deep.txt", "sks, " + "a very long caption that goes on and on about the table, " * 60)
    caption("moving.txt", "The image shows a cup of coffee, sks")
    caption("profile.txt", "sks, caf\ufffd table")
    Image.open(folder / "ihc.jpg").transpose(Image.Transpose.ROTATE_270).save(folder / "silent.jpg")
    Image.open(folder / "retina.jpg").transpose(Image.Transpose.ROTATE_90).save(folder / "cut.png")
    caption("orphan.txt", "sks, nobody's")
    (folder / "drawing.svg").write_text("<svg/>")
    return folder


@pytest.fixture(scope="module")
def everything(bad):
    return report(bad, "resolution=256", "--model", "flux.1-dev", "--tokenizers", flux_pipeline(), code=1)


def test_a_good_folder_is_clean(good):
    document = report(good, "resolution=256", "caption_transform={trigger: null}")
    assert document["clean"] and document["errors"] == document["warnings"] == 0
    assert document["images"] == 8 and document["deep"] is True
    assert document["captions"]["trigger"] == "sks" and document["captions"]["trigger_in"] == 8


@pytest.mark.parametrize(
    ("kind", "where"),
    [
        ("truncated", "cut.jpg"),
        ("empty_file", "nothing.jpg"),
        ("not_an_image", "page.jpg"),
        ("too_many_pixels", "bomb.png"),
        ("animated", "moving.gif"),
        ("no_caption", "silent.jpg"),
        ("too_small", "tiny.jpg"),
        ("extreme_aspect", "long.jpg"),
        ("rotated", "turned.jpg"),
        ("alpha", "clear.png"),
        ("cmyk", "print.jpg"),
        ("sixteen_bit", "deep.png"),
        ("greyscale", "deep.png"),
        ("colour_profile", "profile.jpg"),
        ("refusal", "print.jpg"),
        ("opener", "moving.gif"),
        ("odd_characters", "profile.jpg"),
        ("cut_caption", "deep.png"),
    ],
)
def test_everything_wrong_is_found_by_name(everything, kind, where):
    assert where in kinds(everything).get(kind, [])


def test_what_is_no_row_is_found_too(everything):
    found = kinds(everything)
    assert [Path(name).name for name in found["caption_without_image"]] == ["orphan.txt"]
    assert any("drawing.svg" in name for name in found["unsupported"])
    (stem,) = (one for one in everything["findings"] if one["kind"] == "same_stem")
    assert {stem["where"], *stem["others"]} == {"cut.jpg", "cut.png"}


def test_duplicates_at_their_strongest_level(everything):
    groups = {
        kind: {frozenset((one["where"], *one["others"])) for one in everything["findings"] if one["kind"] == kind}
        for kind in ("same_file", "same_pixels", "near_duplicate")
    }
    assert frozenset(("chelsea.jpg", "copy.jpg")) in groups["same_file"]
    assert frozenset(("coffee.jpg", "again.png")) in groups["same_pixels"]
    assert frozenset(("rocket.jpg", "nearly.jpg")) in groups["near_duplicate"]
    assert len(groups["same_file"]) == 1 and len(groups["same_pixels"]) == 1


def test_a_missing_trigger_is_counted(everything):
    (found,) = (one for one in everything["findings"] if one["kind"] == "trigger_missing")
    assert "sks" in found["detail"] and "print.jpg" in found["others"]


def test_tokens_are_counted_by_the_models_own_tokenizers(everything, bad):
    by_key = {one["key"]: one for one in everything["tokens"]}
    assert by_key["clip_text_tokens"]["limit"] == 77 and by_key["t5_text_tokens"]["limit"] == 512
    assert by_key["t5_text_tokens"]["cut"] == 1
    for one in by_key.values():
        assert sum(count for *_, count in one["histogram"]) > 20
        assert one["histogram"][-1][1] >= one["longest"]


def test_the_plan_leaves_out_what_cannot_be_used(everything):
    plan = everything["plan"]
    unusable = {"cut.jpg", "nothing.jpg", "page.jpg", "bomb.png"}
    assert plan["samples"] == everything["images"] - len(unusable)
    assert sum(count for *_, count in plan["buckets"]) == plan["samples"]


def test_cost_has_every_level(everything):
    levels = {one["level"]: one for one in everything["cost"]}
    assert list(levels) == ["none", "downloads", "pixel_cache", "device_cache", "encodings"]
    assert levels["pixel_cache"]["bytes"] > 20 * 3 * 200 * 200
    assert levels["encodings"]["bytes"] > everything["images"] * 4_000_000  # T5's 512 × 4096 in bf16
    assert all(one["note"] for one in everything["cost"])


def test_the_json_has_the_documented_keys_and_no_others(everything):
    def keys(value):
        inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        return set(value if isinstance(value, dict) else ()).union(*map(keys, inner))

    table = (Path(__file__).parents[2] / "docs" / "check.md").read_text("utf-8").partition("## JSON")[2]
    documented = {
        name for row in re.findall(r"^\| (.*) \|$", table, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)
    }
    assert keys(everything) == documented


def test_a_pipe_gets_a_line_for_each(bad):
    out = run(bad, "resolution=256", "--headers", code=1).stdout
    assert "error: truncated: cut.jpg" in out
    assert "not checked: damage inside files" in out
    assert out.splitlines()[-1].startswith("result: ")


def test_the_fix_list_holds_real_paths(bad, tmp_path):
    run(bad, "resolution=256", "--fix-list", tmp_path / "fix.tsv", code=1)
    paths = [line.split("\t")[0] for line in (tmp_path / "fix.tsv").read_text().splitlines()]
    assert str(bad / "cut.jpg") in paths and str(bad / "copy.jpg") in paths and str(bad / "chelsea.jpg") not in paths


def test_a_second_run_is_the_same_and_a_mended_file_is_seen(good, tmp_path):
    folder = tmp_path / "set"
    shutil.copytree(good, folder)
    cache = tmp_path / "cache"
    (folder / "ihc.jpg").write_bytes(b"")
    first = report(folder, "resolution=256", code=1, CALOTYPE_CACHE=str(cache))
    again = report(folder, "resolution=256", code=1, CALOTYPE_CACHE=str(cache))
    assert again == first  # `made` included: it was remembered
    shutil.copy(good / "ihc.jpg", folder / "ihc.jpg")
    mended = report(folder, "resolution=256", CALOTYPE_CACHE=str(cache))
    assert mended["clean"] and mended["made"] >= first["made"]
    fresh = report(folder, "resolution=256", "--fresh", CALOTYPE_CACHE=str(cache))
    assert {key: fresh[key] for key in ("findings", "images", "plan")} == {
        key: mended[key] for key in ("findings", "images", "plan")
    }


def test_held_out_pictures_that_are_trained_on(good, tmp_path):
    folder = tmp_path / "set"
    for side in ("train", "validation"):
        shutil.copytree(good, folder / side)
    for name in ("retina", "ihc", "coffee"):
        (folder / "train" / f"{name}.jpg").unlink()
        (folder / "train" / f"{name}.txt").unlink()
    document = report(folder, "split=train", "resolution=256", code=1)
    leaks = [one for one in document["findings"] if one["kind"] == "leak"]
    assert {one["where"] for one in leaks} == {
        f"train/{name}.jpg" for name in ("astronaut", "chelsea", "rocket", "hubble_deep_field", "motorcycle_left")
    }
    assert document["held_out"] == 8


def test_a_validation_split_that_nobody_chose_is_compared_too(good, tmp_path):
    for split in ("train", "validation"):
        (tmp_path / split).mkdir()
        name = sorted(path.name for path in good.glob("*.jpg"))[0]
        for file in (name, f"{name.removesuffix('.jpg')}.txt"):
            shutil.copy(good / file, tmp_path / split)
    document = report(tmp_path, "resolution=256", code=1)
    found = {one["kind"]: one for one in document["findings"]}
    assert document["images"] == document["held_out"] == 1
    assert found["leak"]["level"] == "error" and "split='all'" in found["other_splits"]["detail"]


def test_a_data_file_that_cannot_be_read_is_a_problem(tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"file_name": "a.jpg", "text": "x"}\n{broken\n')
    document = report(tmp_path / "rows.jsonl", code=1)
    assert document["images"] in (0, 1)
    assert any("rows.jsonl:2" in one["where"] + one["detail"] for one in document["findings"])


def test_rows_whose_picture_is_not_there_or_no_file(good, tmp_path):
    names = [str(good / "ihc.jpg"), "gone.jpg", "folder.jpg"]
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "rows.jsonl").write_text("\n".join(json.dumps({"file_name": name, "text": name}) for name in names))
    document = report(tmp_path / "rows.jsonl", "resolution=256", code=1)
    assert kinds(document)["missing_file"] == ["gone.jpg"]
    assert kinds(document)["unreadable"] == ["folder.jpg"]


def test_what_one_size_for_all_cuts_away_is_told_in_percent_of_the_area(bad):
    document = report(bad, "img_transform={resize: [256, 256], center_crop: true}", "--headers", code=1)
    lost = {one["where"]: one["detail"] for one in document["findings"] if one["kind"] == "cropped"}
    assert lost["long.jpg"].startswith("85% of its area is cut away, 2000×300 for a frame of 256×256")


def test_the_plan_is_that_of_the_configs_loader(good, tmp_path):
    """Who is left out follows from the loader's seed, its ranks and its policy."""
    import calotype

    loader = {"batch_size": 3, "remainder": "drop", "seed": 5, "rank": 0, "world_size": 2}
    config = tmp_path / "c.yaml"
    config.write_text(json.dumps({"dataset": {"path": str(good), "resolution": 256}, "loader": loader}))
    document = report(config, code=1)
    with calotype.build_loader(calotype.load_config(config, ["loader.in_process=true"])) as real:
        steps = len(real)
        next(iter(real))
        left_out = {entry.id for entry in real.ledger if entry.kind == "remainder"}
    assert (document["plan"]["batches"], document["plan"]["world_size"]) == (steps, 2) == (1, 2)
    assert set(kinds(document)["left_out"]) == left_out and len(left_out) == 2
    assert report(config, "--ranks", 1, code=1)["plan"]["batches"] == 2


def test_names_that_are_no_text_are_named_all_the_same(good, tmp_path):
    folder = tmp_path / "set"
    shutil.copytree(good, folder)
    for name in (b"a\xff.jpg", b"b\xff.svg"):
        Path(os.fsdecode(os.fsencode(folder) + b"/" + name)).write_bytes(b"")
    document = report(folder, "resolution=256", code=1, PYTHONIOENCODING="utf-8:strict")
    assert kinds(document)["unsupported"] == ["b\\xff.svg"]
    assert "not UTF-8" in next(one["detail"] for one in document["findings"] if one["kind"] == "bad_row")
    assert "b\\xff.svg" in run(folder, "resolution=256", code=1, PYTHONIOENCODING="utf-8:strict").stdout


def test_held_out_pictures_elsewhere_are_watched_too(good, tmp_path):
    """They are part of what a remembered report was made from."""
    other = tmp_path / "elsewhere"
    shutil.copytree(good, other)
    (tmp_path / "lists").mkdir()
    for side, names in (("train", ("ihc", "coffee")), ("validation", ("rocket", "retina"))):
        rows = [json.dumps({"file_name": str(other / f"{name}.jpg"), "text": f"sks, {name}"}) for name in names]
        (tmp_path / "lists" / f"{side}.jsonl").write_text("\n".join(rows))
    environment = {"CALOTYPE_CACHE": str(tmp_path / "cache")}
    document = report(tmp_path / "lists", "split=train", "resolution=256", **environment)
    assert (document["images"], document["held_out"]) == (2, 2)
    shutil.copy(other / "ihc.jpg", other / "rocket.jpg")
    assert kinds(report(tmp_path / "lists", "split=train", "resolution=256", code=1, **environment))["leak"]


def test_tokenizers_that_come_later_are_seen(good, tmp_path):
    """A report without them is not remembered: nobody could see that they have come."""
    settings = {"CALOTYPE_CACHE": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hub")}
    command = [COMMAND, "check", good, "resolution=256", "--model", "flux.1-dev", "--json"]

    def in_process_of_its_own():  # huggingface_hub reads the environment when it is imported
        return subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ | settings)

    done = in_process_of_its_own()
    assert "Continuing without them" in done.stderr and "hf download" in done.stderr
    document = json.loads(done.stdout.splitlines()[-1])
    assert document["model"] == "flux.1-dev" and document["tokens"] == []
    repository = tmp_path / "hub" / "hub" / "models--black-forest-labs--FLUX.1-dev"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0" * 40)
    shutil.copytree(flux_pipeline(), repository / "snapshots" / ("0" * 40))
    document = json.loads(in_process_of_its_own().stdout.splitlines()[-1])
    assert [one["key"] for one in document["tokens"]] == ["clip_text_tokens", "t5_text_tokens"]


def test_after_ctrl_c_what_was_seen_is_known(good, tmp_path):
    folder, cache = tmp_path / "set", tmp_path / "cache"
    folder.mkdir()
    Image.open(good / "coffee.jpg").resize((2400, 2400)).save(tmp_path / "large.jpg", quality=60)
    data = (tmp_path / "large.jpg").read_bytes()
    for number in range(150):
        (folder / f"{number:03d}.jpg").write_bytes(data + bytes(number))  # other bytes behind the same pixels
    command = [COMMAND, "check", folder, "resolution=256", "missing_captions=empty", "loader.threads=1", "--deep"]
    environment = os.environ | {"CALOTYPE_CACHE": str(cache)}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, env=environment, text=True)
    deadline = time.monotonic() + 60
    while not (cache / "facts" / "facts.sqlite3").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in errors
    with sqlite3.connect(cache / "facts" / "facts.sqlite3") as database:
        known = {
            table: database.execute(f"select count(*) from {table}").fetchone()[0]
            for (table,) in database.execute(
                "select name from sqlite_master where name like 'pixels_%' and type='table'"
            )
        }
    assert 0 < sum(known.values()) < 150


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["no/such/folder"], "there is no such file or folder"),
        (["GOOD", "reslution=3"], "did you mean 'dataset.resolution'"),
        (["GOOD", "--model", "flux.1-dve"], "did you mean 'flux.1-dev'"),
        (["GOOD", "--ranks", "0"], "--ranks"),
        (["GOOD", "loader.batch_size=0"], "batch_size"),
        (["GOOD", "loader.batchsize=4"], "did you mean 'batch_size'"),
        (["GOOD", "loader.on_upscale=wran"], "on_upscale: found 'wran'"),
        (["GOOD", "--model", "flux.1-dev", "--tokenizers", "no/such/folder"], "no such folder: no/such/folder"),
        (["GOOD", "--depe"], "there is no flag --depe; did you mean '--deep'?"),
        (["GOOD", "--fix-list", "/dev/null/fix.tsv"], "--fix-list: /dev/null/fix.tsv: can't be written: "),
    ],
)
def test_wrong_use_is_status_2(good, arguments, message):
    done = run(*[good if word == "GOOD" else word for word in arguments], code=2)
    assert message in done.stderr
