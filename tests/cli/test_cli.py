"""The command as people and programs run it: its exit status, its last line of JSON, its errors."""

import json
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from command import calotype
from real_tokenizers import flux_pipeline
from tiny_pipelines import tiny_pipeline

COMMAND = Path(sys.executable).parent / "calotype"


def run(*arguments, code=0, **env):
    out, err = calotype(*arguments, code=code, **env)
    return SimpleNamespace(stdout=out, stderr=err)


def answer(done):
    return json.loads(done.stdout.splitlines()[-1])


def test_help_answers_at_once_and_loads_nothing_heavy():
    heavy = ("torch", "pyarrow", "numpy", "PIL")
    code = f"import sys, calotype.cli.commands; print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"
    times = []
    for _ in range(3):
        start = time.perf_counter()
        out = subprocess.run([COMMAND, "--help"], capture_output=True, text=True, check=True).stdout
        times.append(time.perf_counter() - start)
    assert all(verb in out for verb in ("info", "check", "preview", "init", "train", "demo", "models"))
    print(f"--help: {statistics.median(times):.2f} s")


def test_info_of_a_bare_folder_with_overrides(photos):
    document = answer(run("info", photos, "resolution=256", "loader.batch_size=4", "--json"))
    assert document["found"]["rows"] == 12 and document["found"]["captions"] == 24
    assert sum(bucket["images"] for bucket in document["buckets"]) == 12
    assert document["batches"] == 3
    assert document["batch"][0]["key"] == "img" and document["batch"][0]["shape"][:2] == [4, 3]
    assert document["images_per_second"] > 0


def test_info_for_people_with_a_models_tokens(photos):
    out = run("info", photos, "resolution=256", "--model", "flux.1-dev", "--tokenizers", flux_pipeline()).stdout
    assert "rows: 12" in out
    assert "clip_text_tokens" in out and "(1, 512)" in out


def test_without_its_tokenizers_a_model_still_gives_sizes(photos):
    done = run("info", photos, "resolution=256", "--model", "flux.1-dev", "--json", HF_HUB_OFFLINE="1")
    assert [entry["key"] for entry in answer(done)["batch"]] == ["img"]
    assert "FLUX.1-dev" in done.stderr and "batches hold pixels and no tokens" in done.stderr


def test_demo_ends_by_naming_what_to_open(tmp_path):
    pipeline = tiny_pipeline("flux.1-dev")
    done = run("demo", tmp_path / "demo", "--tokenizers", flux_pipeline(), "--pipeline", pipeline)
    out = done.stdout
    page, sample = tmp_path / "demo" / "preview.html", tmp_path / "demo" / "lora" / "samples" / "step-00000120-0.png"
    assert out.splitlines()[-1].endswith(f"open {page}") and sample.is_file()
    assert all(line.startswith(("encoding ", "training", "reading ", "looking ")) for line in done.stderr.splitlines())
    losses = [float(line.split()[3]) for line in out.splitlines() if line.startswith("step") and "loss" in line]
    assert len(losses) == 6 and losses[-1] < 0.9 * losses[0]
    assert (tmp_path / "demo" / "lora" / "pytorch_lora_weights.safetensors").is_file()
    assert page.read_text("utf-8").count("<article") == 11
    assert "t5_text_tokens" in out and "images/s" not in out and "captions: 22" in out
    assert re.search(r"The loss fell from \d\.\d+ to \d\.\d+:\n", out)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["info", "no/such/folder"], 2, "no/such/folder"),
        (["info", "PHOTOS", "reslution=3"], 2, "did you mean 'dataset.resolution'"),
        (["info", "PHOTOS", "--model", "flux.1-dve"], 2, "did you mean 'flux.1-dev'"),
        (
            ["preview", "PHOTOS", "-o", "page.pdf"],
            2,
            "'page.pdf'; expected a name that ends in .html (the page) or .png",
        ),
        (["preview", "PHOTOS", "resolution=128", "--autoencoder", "PHOTOS"], 2, "no autoencoder of diffusers at"),
        (["info"], 2, "Missing argument"),
    ],
)
def test_errors_are_sentences(photos, arguments, code, message):
    done = run(*[photos if word == "PHOTOS" else word for word in arguments], code=code)
    assert message in done.stderr
    assert "Traceback" not in done.stderr
