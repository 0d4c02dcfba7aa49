"""`calotype convert` as people and programs run it."""

import json
import shutil
import subprocess
import sys

import pytest
from convert_helpers import facts, load

from calotype.cli import main
from calotype.cli.convert import Images, To
from calotype.convert import FORMS
from calotype.images import ImageReader


@pytest.fixture
def run(monkeypatch, capsys):
    """run(arguments, code=0) → (standard output, standard error)."""

    def run(*arguments, code=0):
        monkeypatch.setattr(sys, "argv", ["calotype", "convert", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        assert (ended.value.code or 0) == code, out + err
        return out, err

    return run


def test_needs_no_torch(source, tmp_path):
    code = f"""
import sys
from calotype.cli import main
sys.argv = ["calotype", "convert", {str(source)!r}, {str(tmp_path / "out")!r}, "--to", "webdataset"]
try:
    main()
finally:
    print("torch" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("False\n")


def test_its_choices_are_the_forms():
    assert [choice.value for choice in To] == list(FORMS)
    assert {choice.value for choice in Images} == {images for form in FORMS.values() for images in form.images}


def answer(out):
    return json.loads(out.splitlines()[-1])


def test_there_and_verified(run, source, tmp_path):
    out, _ = run(source, tmp_path / "out", "--to", "webdataset", "--shard-size", "5KB")
    assert out.startswith("5 images (") and "B written" in out
    assert len(list((tmp_path / "out").iterdir())) > 1
    assert facts(load(tmp_path / "out")) == facts(load(source))
    out, _ = run(source, tmp_path / "out", "--to", "webdataset", "--shard-size", "5KB", "--verify")
    assert out.endswith("all as in the source\n")
    shard = min((tmp_path / "out").iterdir())
    data = bytearray(shard.read_bytes())
    data[1500] ^= 1
    shard.write_bytes(data)
    out, _ = run(source, tmp_path / "out", "--to", "webdataset", "--verify", "--json", code=1)
    assert [found["what"] for found in answer(out)["differences"]] == ["picture"]


def test_dry_run_writes_nothing(run, source, tmp_path):
    out, _ = run(source, tmp_path / "out", "--to", "parquet", "--dry-run", "--json")
    total = sum(len(ImageReader().read_bytes(ref)) for ref in load(source).refs())
    document = answer(out)
    assert (document["rows"], document["bytes"], document["images"]) == (5, total, "embed")
    out, _ = run(source, tmp_path / "out", "--to", "kohya", "--dry-run")
    assert "images to kohya (copy)" in out and "would be written" in out
    assert list(tmp_path.iterdir()) == []


def test_kohya_goes_without_the_rejected(run, source, tmp_path):
    out, err = run(source, tmp_path / "out", "--to", "kohya", "--json")
    assert "rejected" in {found["kind"] for found in answer(out)["findings"]}
    assert len(load(tmp_path / "out", "kohya")) == 4
    _, err = run(source, tmp_path / "again", "--to", "kohya", "--bake-trigger", "sks")
    assert "1 left out of the source: rejected" in err
    assert (tmp_path / "again" / "3_sks" / "a.txt").read_text() == "sks, ein Haus – 夜, émoji 🐈\n"


def test_options_of_the_source(run, tmp_path, source):
    config = tmp_path / "photos.yaml"
    config.write_text(f"dataset:\n  path: {source / 'metadata.jsonl'}\n  resolution: 64\n")
    out, _ = run(config, tmp_path / "rows.csv", "dataset.columns={caption: artist}", "--to", "csv", "--json")
    assert answer(out)["images"] == "refer"
    assert [row.captions for row in load(tmp_path / "rows.csv")] == [(f"who {number}",) for number in range(5)]


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--to", "zip"], 2, "zip"),
        ([], 2, "--to"),
        (["--to", "lmdb", "--images", "link"], 2, "lmdb can't link images"),
        (["--to", "hf", "--shard-size", "many"], 2, "--shard-size: found 'many'"),
        (["--to", "jsonl", "--template", "no place"], 2, "{caption}"),
        (["clumns.image=a", "--to", "jsonl"], 2, "did you mean 'columns'?"),
    ],
)
def test_wrong_use(run, source, tmp_path, options, code, said):
    _, err = run(source, tmp_path / "out", *options, code=code)
    assert said in err


def test_a_config_with_a_path_and_a_source(run, source, tmp_path):
    (tmp_path / "a.yaml").write_text(f"dataset: {{path: {source}, source: {source}}}")
    _, err = run(tmp_path / "a.yaml", tmp_path / "out", "--to", "jsonl", code=2)
    assert "expected one of `path` or `source`" in err


def test_a_destination_that_is_there(run, source, tmp_path):
    run(source, tmp_path / "out", "--to", "jsonl")
    _, err = run(source, tmp_path / "out", "--to", "jsonl", code=2)
    assert "exists, and is never overwritten" in err
    _, err = run(source, tmp_path / "nowhere", "--to", "jsonl", "--verify", code=2)
    assert "there is no such result" in err
    _, err = run(tmp_path / "nothing", tmp_path / "new", "--to", "jsonl", code=2)
    assert "there is no such file or folder" in err


def test_interrupted(run, source, tmp_path, monkeypatch):
    def interrupt(self, ref):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(ImageReader, "read_bytes", interrupt)
        _, err = run(source, tmp_path / "out", "--to", "imagefolder", code=130)
    assert "run the same command again" in err and not (tmp_path / "out").exists()
    run(source, tmp_path / "out", "--to", "imagefolder")


def test_images_that_are_not_there(run, tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"image": "gone.jpg", "text": "a"}\n{"image": "x.jpg", "text": "b"}\n')
    (tmp_path / "x.jpg").write_bytes(b"\xff\xd8\xff not whole, and copied as it is")
    _, err = run(tmp_path / "rows.jsonl", tmp_path / "out", "--to", "imagefolder", code=1)
    assert "gone.jpg" in err and "--skip" in err
    out, _ = run(tmp_path / "rows.jsonl", tmp_path / "out", "--to", "imagefolder", "--skip", code=1)
    assert "Left out: gone.jpg" in out
    assert [row.id for row in load(tmp_path / "out")] == ["x.jpg"]


def test_captions_that_are_not_read_are_not_lost_without_a_word(run, skimage_data, tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("a", "b"):
        shutil.copy(next(skimage_data.glob("coffee.*")), folder / f"{name}.png")
    (folder / "a.tags").write_text("a cup")
    _, err = run(folder, tmp_path / "out", "--to", "kohya", "--bake-trigger", "ohwx", code=1)
    assert "none of the 2 images has a caption" in err and "caption_suffix=.tags" in err
    (folder / "b.txt").write_text("1girl\nby a window\n")
    _, err = run(folder, tmp_path / "out", "--to", "kohya", code=2)
    assert "a.tags: files of the suffix .tags" in err and "caption_lines=many makes each line a caption" in err
    run(folder, tmp_path / "out", "--to", "jsonl", "caption_suffix=[.tags,.txt]", "caption_lines=many")
    found = {row.id: row.captions for row in load(tmp_path / "out")}
    assert found == {"a.png": ("a cup",), "b.png": ("1girl", "by a window")}


def test_splits_that_are_not_converted_are_named(run, skimage_data, tmp_path):
    for split in ("train", "test"):
        (tmp_path / "set" / split).mkdir(parents=True)
        shutil.copy(next(skimage_data.glob("coffee.*")), tmp_path / "set" / split / "a.png")
        (tmp_path / "set" / split / "a.txt").write_text(split)
    _, err = run(tmp_path / "set", tmp_path / "out", "--to", "jsonl", "--images", "copy")
    assert "split 'train' was read of train (1 images), test (1 images)" in err
    run(tmp_path / "set", tmp_path / "all", "--to", "jsonl", "--images", "copy", "split=all")
    out, _ = run(tmp_path / "set", tmp_path / "all", "--to", "jsonl", "--images", "copy", "split=all", "--verify")
    assert out.startswith("2 ") and out.endswith("all as in the source\n")


def test_an_option_goes_without_its_section_as_elsewhere(run, source, tmp_path):
    """`allow_private=true` is short for `dataset.fetch.allow_private=true` in every command."""
    for written in ("allow_private", "fetch.allow_private", "dataset.fetch.allow_private"):
        run(source, tmp_path / "out", "--to", "webdataset", f"{written}=true", "--dry-run")
    _, err = run(source, tmp_path / "out", "--to", "webdataset", "allow_private=often", "--dry-run", code=2)
    assert "dataset.fetch.allow_private: found 'often'" in err
    for other in ("batch_size=4", "max_bytes=5", "drop=0.5"):  # of another section, of two, of one without effect
        _, err = run(source, tmp_path / "out", "--to", "webdataset", other, "--dry-run", code=2)
        assert f"convert: unknown option '{other.partition('=')[0]}'" in err
