"""`calotype info`: what it prints for people, and that it looks at images also where a config has encodings."""

import json
import re
import shutil
import subprocess
import sys

import pytest
from command import calotype
from real_tokenizers import flux_pipeline
from tiny_pipelines import tiny_pipeline

from calotype.cli.info import show
from calotype.loader.summary import BucketCount, Entry, Summary


def summary(**changes):
    values = {
        "found": {"rows": 12, "captions": 12, "shown_per_epoch": 12.0, "root": "/data/photos", "format": "folder"},
        "buckets": (),
        "batches": 3,
        "batch": (),
        "images_per_second": None,
        "ledger": {},
    }
    return Summary(**values | changes)


@pytest.fixture
def encoded_config(photos, tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text(
        f"dataset: {{path: {photos}, resolution: 64}}\nmodel: {tiny_pipeline('flux.1-dev')}\n"
        f"encodings: {{store: {tmp_path / 'store'}, on_the_fly: true}}\nloader: {{batch_size: 4, seed: 3}}\n"
    )
    return path


def test_a_config_with_encodings_shows_its_images_and_encodes_nothing(encoded_config, tmp_path):
    out, _ = calotype("info", encoded_config, "--json")
    assert [entry["key"] for entry in json.loads(out)["batch"]] == ["img", "clip_text_tokens", "t5_text_tokens"]
    assert not (tmp_path / "store").exists()
    out, _ = calotype("info", encoded_config)
    assert out.splitlines()[-1].startswith("Training reads the encodings of these images: --encoded")


def test_encoded_shows_the_encoded_batches(encoded_config):
    out, _ = calotype("info", encoded_config, "--encoded", "--json")
    keys = [entry["key"] for entry in json.loads(out)["batch"]]
    assert keys == ["latents", "prompt_embeds", "pooled_prompt_embeds"]


@pytest.mark.parametrize("command", ["info", "preview"])
def test_encoded_without_encodings_is_refused(photos, command):
    _, err = calotype(command, photos, "--encoded", code=2)
    assert err.count("\n") == 1 and "encodings.on_the_fly=true" in err


def test_figures_in_units_people_use(capsys):
    show(
        summary(
            batch=(
                Entry(key="img", kind="float32", shape=(4, 3, 64, 64), low=-0.987654, high=0.123456, device="cpu"),
                Entry(key="ids", kind="int64", shape=(4, 77), low=0.0, high=1249407.0, device="cpu"),
            ),
            images_per_second=0.41234,
            measured_images=16,
        )
    )
    out = capsys.readouterr().out
    assert "-0.988 … 0.123" in out and "0 … 1249407" in out and "0.41 images/s" in out
    assert "shown per epoch" not in out  # it equals the rows


def test_a_cut_caption_is_a_line_not_a_screen(tmp_path, photos, caplog):
    folder = tmp_path / "photos"
    folder.mkdir()
    shutil.copy(photos / "00.jpg", folder)
    (folder / "00.txt").write_text("many words " * 400)
    model = ("--model", "flux.1-dev", "--tokenizers", flux_pipeline())
    out, _ = calotype("info", folder, "resolution=64", *model)
    assert "caption cut: 2" in out  # by both tokenizers
    (line,) = caplog.messages
    assert line.startswith("caption_cut: 00.jpg") and len(line) <= 200


def test_one_line_for_all_images_that_are_too_small(photos, caplog):
    calotype("info", photos, "resolution=1024")
    (line,) = [line for line in caplog.messages if line.startswith("upscaled")]
    assert re.match(r"upscaled: 12, the first 00.jpg: \d+×\d+ px is enlarged \d\.\d\d× to fill the bucket", line)


def test_a_rate_of_two_images_is_not_printed(capsys):
    show(summary(images_per_second=3.0, measured_images=2))
    assert "images/s" not in capsys.readouterr().out


def test_no_python_lists_and_at_most_a_screen(capsys):
    buckets = tuple(BucketCount(height=64 * n, width=64, images=n) for n in range(1, 100))
    found = {"rows": 9, "format": ["folder", "jsonl"], "notes": ["a note", "another"], "left_out": {"bad_row": 2}}
    show(summary(found=found, buckets=buckets, ledger={"caption_cut": 1200}))
    out = capsys.readouterr().out
    assert "[" not in out and "{" not in out
    assert "64×6336: 99" in out and "64×64: 1 " not in out and "and 75 more" in out
    assert "Note  a note\nNote  another\n" in out
    assert "Left out  bad row: 2" in out and "caption cut: 1,200" in out
    assert max(map(len, out.splitlines())) <= 80


@pytest.mark.parametrize("command", ["info", "preview"])
def test_images_without_a_caption_are_looked_at_with_a_note(command, tmp_path, photos):
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("00.jpg", "01.jpg"):
        shutil.copy(photos / name, folder)
    (folder / "00.txt").write_text("a caption")
    output = ("-o", tmp_path / "page.html") if command == "preview" else ()
    out, err = calotype(command, folder, "resolution=64", *output)
    assert err.count("training stops at images without a caption") == 1 and err.count("\n") == 1
    model = ("--model", "flux.1-dev", "--tokenizers", tmp_path)  # where no tokenizers are
    _, err = calotype(command, folder, "resolution=64", *model, *output)
    assert err.count("training stops at images without a caption") == err.count("Continuing without them") == 1
    assert ("without caption: 1" if command == "info" else "1 without a caption") in out


def test_a_wrong_suffix_is_answered_before_torch_is_imported(tmp_path, photos):
    code = (
        "import sys; from calotype.cli import main\n"
        f"sys.argv = ['calotype', 'preview', {str(photos)!r}, '-o', {str(tmp_path / 'page.pdf')!r}]\n"
        "try: main()\nfinally: print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "False\n") and ".html" in done.stderr
