"""From a folder of photos to a LoRA in two commands, as people run them; and two ranks under torchrun."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import diffusers
import pytest
import torch
import yaml
from safetensors.torch import load_file
from tiny_pipelines import tiny_pipeline
from train_helpers import config, make_folder, run

from calotype.cli import main
from calotype.config import load_config
from calotype.config.train import TrainConfig
from calotype.models.registry import get_spec

BIN = Path(sys.executable).parent


def command(*arguments, code=0, cwd=None, program="calotype"):
    done = subprocess.run(
        [BIN / program, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=cwd,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == code, done.stderr
    return done


def test_two_commands_from_photos_to_a_lora(tmp_path, monkeypatch, capsys):
    make_folder(tmp_path / "photos", size=(160, 128))
    model = tiny_pipeline("flux.1-dev")
    init = ("init", "photos", "--model", model, "--trigger", "cpelletier")
    assert "calotype train photos.yaml" in command(*init, cwd=tmp_path).stdout
    written = yaml.safe_load((tmp_path / "photos.yaml").read_text())
    assert written["dataset"]["caption_transform"]["trigger"] == "cpelletier"
    assert written["dataset"]["resolution"] == 256 and written["model"] == str(model)

    train = ("train", "photos.yaml", "max_steps=4", "output_dir=out", "log_every=2", "sample_steps=2")
    small = ("resolution=128", "loader.device=cpu")
    done = command(*train, *small, "--json", cwd=tmp_path)
    report = json.loads(done.stdout.splitlines()[-1])
    assert report["steps"] == 4 and [step for step, _ in report["losses"]] == [2, 4]
    assert "step 2/4  loss" in done.stdout and "data wait" in done.stdout
    (lora,) = (tmp_path / "out").glob("*lora*.safetensors")
    assert report["result"] == str(lora.relative_to(tmp_path))
    pipe = diffusers.FluxPipeline.from_pretrained(model)
    pipe.load_lora_weights(tmp_path / "out")
    assert (tmp_path / "out" / "samples" / "step-00000004-0.png").is_file()

    monkeypatch.chdir(tmp_path)
    assert here(monkeypatch, *train, *small, "max_steps=5", "sample_prompts=[]", "--resume") == 0
    out = capsys.readouterr().out
    assert "Resuming from step 4" in out and out.splitlines()[-1].startswith("Done: out")


def test_init_looks_at_images_and_captions_and_needs_no_torch(tmp_path, monkeypatch, capsys):
    folder = make_folder(tmp_path / "my photos", size=(600, 700))
    names = sorted(folder.glob("*.txt"))
    names[0].unlink()
    count = len(names)
    code = "import sys; from calotype.cli import main\ntry: main()\nfinally: assert 'torch' not in sys.modules"
    init = ("init", "my photos", "--model", "flux.1-dev", "--trigger", "a word")
    done = subprocess.run([sys.executable, "-c", code, *init], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0 and not done.stderr, done.stderr
    assert done.stdout.splitlines() == [
        f"Wrote my photos.yaml: a LoRA of flux.1-dev on {count} images of my photos, at 512 pixels",
        "At the 1024 pixels of flux.1-dev more than half of the images would be enlarged",
        "1 has no caption; the trigger alone is trained with them. To write captions:",
        "  calotype caption 'my photos' --preset short --trigger 'a word'",
        "Training downloads the model once (33.7 GB), unless it is here already; where it is gated,",
        "  accept its terms on https://huggingface.co/black-forest-labs/FLUX.1-dev and run `hf auth login`",
        "Look at it, then train:",
        *(f"  calotype {verb} 'my photos.yaml'" for verb in ("check", "preview", "train")),
    ]
    assert "#   calotype train 'my photos.yaml'  " in (tmp_path / "my photos.yaml").read_text()
    monkeypatch.chdir(tmp_path)
    assert here(monkeypatch, *init, "--force", "--json") == 0
    made = json.loads(capsys.readouterr().out)
    assert (made["images"], made["without_caption"], made["resolution"]) == (count, 1, 512)


def here(monkeypatch, *arguments):
    """The command in this process: its exit status."""
    monkeypatch.setattr(sys, "argv", ["calotype", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code


def test_init_names_only_commands_that_work_and_sizes_that_are_known(tmp_path, monkeypatch, capsys):
    """Captions of a single image are not written in place; a family of another package may not say its size."""
    folder = make_folder(tmp_path / "photos")
    for caption in folder.glob("*.txt"):
        caption.unlink()
    image = min(folder.iterdir())
    spec = replace(get_spec("sd-1.5"), network_bytes=None)
    monkeypatch.setattr("calotype.models.registry.get_spec", lambda name: spec)
    assert here(monkeypatch, "init", image, "--model", "sd-1.5", "--trigger", "x", "-o", tmp_path / "a.yaml") == 0
    first, *_, second, third = capsys.readouterr().out.splitlines()[:4]
    assert " on 1 image of " in first
    assert second == "1 has no caption; the trigger alone is trained with them."
    assert third == "Training downloads the model once, unless it is here already; where it is gated,"


def test_init_writes_over_nothing_unasked(tmp_path, monkeypatch, capsys):
    make_folder(tmp_path / "photos")
    file = tmp_path / "mine.yml"
    file.write_text("mine")
    init = ("init", tmp_path / "photos", "--model", "flux.1-schnell", "--trigger", 'the "one"', "-o", file)
    assert here(monkeypatch, *init) == 2
    assert "is there already; --force" in capsys.readouterr().err and file.read_text() == "mine"
    assert here(monkeypatch, *init, "--force") == 0
    made = load_config(file)
    assert made["dataset"]["caption_transform"]["trigger"] == 'the "one"' and made["model"] == "flux.1-schnell"
    assert made["dataset"]["path"] == str(tmp_path / "photos")
    TrainConfig.of(made["train"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["init", "nowhere", "--model", "flux.1-dev", "--trigger", "x"], "nowhere: there is no such folder"),
        (["init", ".", "--model", "flux.1-dve", "--trigger", "x"], "did you mean 'flux.1-dev'"),
        (["init", ".", "--model", "chroma", "--trigger", "x"], "it trains the families flux.1, sd3, sdxl, sd-1"),
        (["init", ".", "--model", "flux.1-dev", "--trigger", "x", "-o", "a.txt"], "expected a name that ends in .yaml"),
        (["train", ".", "learning_rat=1"], "did you mean 'train.learning_rate'"),
        (["train", ".", "max_steps=none"], "train.max_steps: found 'none', expected a whole number"),
        (["train", "photos"], "calotype: model: nothing says for which model"),
        (["train", ".", "--model", "sdxl"], "-lora is in the data folder ., where samples and checkpoints would be"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_errors_are_sentences(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert here(monkeypatch, *arguments) == 2
    assert message in capsys.readouterr().err


def test_what_a_folder_holds_is_said_before_torch_is_imported(tmp_path, monkeypatch):
    """A finished run is refused; where `--resume` finds none, a note names the folder, and the run begins."""
    photos, output = make_folder(tmp_path / "photos"), tmp_path / "out"
    (output / "checkpoints" / "step-00000009").mkdir(parents=True)
    made = config(photos, output_dir=str(output), max_steps=1)
    code = (
        "import json, sys; from calotype import train\n"
        "try: train.run(json.loads(sys.argv[1]))\n"
        "except Exception as error: print(error, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, json.dumps(made)], capture_output=True, text=True)
    refused = (
        f"{output}/checkpoints/step-00000009: is of an earlier run; --resume continues it, output_dir=… begins anew"
    )
    assert done.stdout == f"{refused} False\n", done.stderr

    monkeypatch.chdir(tmp_path)
    said = []
    run(photos, "new", max_steps=1, resume=True, tell=said.append)
    assert said.index(f"note: --resume: {tmp_path / 'new'} has no checkpoint; begins anew") < said.index(
        "Training from step 1 of 1 …"
    )


RANKS = """
import json, os, sys
import torch
from calotype.train import loop as recipe
from calotype import train

kept, keys = {}, []
make, draw = recipe.make_trainable, recipe.flow.sample_noise

def make_trainable(transformer, *args, **options):
    make(transformer, *args, **options)
    kept.update(recipe.trained(transformer))

def sample_noise(shape, key, **options):
    keys.append(key)
    return draw(shape, key, **options)

recipe.make_trainable, recipe.flow.sample_noise = make_trainable, sample_noise
train.run(json.load(open(sys.argv[1])))
weights = {name: value.detach() for name, value in kept.items()}
torch.save({"weights": weights, "keys": keys}, f"{sys.argv[2]}/rank{os.environ['RANK']}.pt")
"""


def test_two_ranks_have_their_own_noise_and_end_with_the_same_weights(tmp_path):
    folder = make_folder(tmp_path / "photos")
    options = {"max_steps": 3, "mixed_precision": "bf16", "loader": {"batch_size": 1}}
    made = config(folder, output_dir=str(tmp_path / "out"), **options)
    (tmp_path / "config.json").write_text(json.dumps(made))
    (tmp_path / "ranks.py").write_text(RANKS)
    script = (tmp_path / "ranks.py", tmp_path / "config.json", tmp_path)
    command("--nproc-per-node", 2, "--standalone", *script, program="torchrun")
    ranks = [torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in (0, 1)]
    first, second = (rank["weights"] for rank in ranks)
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
    assert [[key[1:] for key in rank["keys"]] for rank in ranks] == [[(n, rank) for n in range(3)] for rank in (0, 1)]
    saved = load_file(tmp_path / "out" / "checkpoints" / "step-00000003" / "trained.safetensors")
    assert all(torch.equal(saved[name], first[name]) for name in saved)
