"""The examples, run as their readers run them: on the demo's photos, with a tiny FLUX.1 of diffusers' own classes."""

import json
import os
import re
import shutil
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import pytest
import real_tokenizers
import torch
from tiny_pipelines import tiny_pipeline

import calotype
from calotype import encodings
from calotype.data.collate import collate
from calotype.demo import write_demo
from calotype.types import SampleKey

EXAMPLES = Path(__file__).parents[1] / "examples"
DIFFUSERS = "CALOTYPE_DIFFUSERS_SOURCE"
"""Names a checkout of diffusers, whose own script is then run."""

CONFIG = """
model: {model}
dataset:
  path: photos
  resolution: 64
  img_transform: {{horizontal_flip: 0.5}}
  caption_transform: {{drop: 0.05, trigger: calotypist}}
encodings: {{store: encodings, dtype: float32, max_sequence_length: 64}}
loader: {{batch_size: 4, seed: 7, in_process: {in_process}}}
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with the demo's photos, their encodings, and two configs over them: with a loader process and without.

    Without one a run starts seconds earlier. Both give the same batches.
    """
    home = tmp_path_factory.mktemp("examples")
    write_demo(home)
    for name, in_process in (("photos.yaml", True), ("loader_process.yaml", False)):
        (home / name).write_text(CONFIG.format(model=tiny_pipeline("flux.1-dev"), in_process=str(in_process).lower()))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        encodings.run(calotype.load_config("photos.yaml"), device="cpu")
    return home


def run(home, *command):
    """What it printed. On the CPU, also where there is a GPU: there, sums may come out in another order."""
    settings = {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(EXAMPLES)}
    done = subprocess.run(
        [sys.executable, *map(str, command)],
        cwd=home,
        env=os.environ | settings,
        capture_output=True,
        text=True,
        timeout=150,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def losses(output):
    """Step → loss, as printed: six digits."""
    found = re.findall(r"^step (\d+) loss ([\d.]+)$", output, flags=re.MULTILINE)
    steps = [int(step) for step, _ in found]
    assert steps == list(range(steps[0], steps[0] + len(steps)))
    return {int(step): float(loss) for step, loss in found}


def falls(history):
    values = list(history.values())
    return sum(values[-3:]) < 0.9 * sum(values[:3])


LOOPS = ("accelerate_loop", "lightning_module", "grain_torchtitan")
RUNS = """
import importlib
from pathlib import Path

for example in {examples}:
    train = importlib.import_module(example).train
    for output, steps in ((f"{{example}}-whole", 9), (f"{{example}}-parts", 5), (f"{{example}}-parts", 9)):
        print("==", example, flush=True)
        train("photos.yaml", Path(output), steps=steps, save_every=5, lr=3e-3)
"""


@pytest.fixture(scope="module")
def runs(home):
    """Example → the losses of an uninterrupted run of 9 steps, of one of 5, and of the one that goes on from there."""
    runs = {example: [] for example in LOOPS}
    for part in run(home, "-c", RUNS.format(examples=LOOPS)).split("== ")[1:]:
        example, _, output = part.partition("\n")
        runs[example].append(losses(output))
    return runs


@pytest.mark.parametrize("example", LOOPS)
def test_a_resumed_run_is_the_uninterrupted_one(runs, example):
    """An epoch has 3 or 4 batches, so the loader is resumed in the middle of one."""
    whole, first, rest = runs[example]
    assert list(whole) == list(range(1, 10))
    assert falls(whole)
    assert first == {step: whole[step] for step in range(1, 6)}
    assert rest == {step: whole[step] for step in range(6, 10)}


def test_the_command_goes_on_from_the_last_checkpoint(home, runs):
    whole, _, _ = runs["accelerate_loop"]
    output = run(home, EXAMPLES / "accelerate_loop.py", "loader_process.yaml", "accelerate_loop-whole", "--steps", 7)
    rest = losses(output)
    assert list(rest) == [6, 7]
    assert rest[6] == whole[6]


def test_grains_ranks_share_each_epoch_and_draw_it_anew(home, monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES)
    from grain_torchtitan import GrainDataLoader

    monkeypatch.chdir(home)
    dataset = calotype.build_dataset(calotype.load_config("photos.yaml", ["buckets=false"]))
    ranks = [GrainDataLoader(dataset, 11, dp_rank=rank, dp_world_size=2) for rank in range(2)]
    batches = [torch.cat([next(batches)[1] for _ in range(2)]) for batches in map(iter, ranks)]
    images = torch.stack(batches, dim=1).flatten(0, 1)  # the ranks take turns: four epochs of 11
    seen = [{image.numpy().tobytes() for image in epoch} for epoch in images.split(11)]
    for epoch, found in enumerate(seen):
        assert found == {dataset[SampleKey(index, epoch)]["img"].numpy().tobytes() for index in range(11)}
    assert seen[0] != seen[1]
    with pytest.raises(ValueError, match="of 2 ranks, this run has 1"):
        GrainDataLoader(dataset, 11).load_state_dict(ranks[0].state_dict())


def test_torchtunes_yaml_builds_and_loads_as_a_recipe_does(home):
    places = [f"data={home / 'photos'}", f"tokenizers={real_tokenizers.flux_pipeline()}"]
    config = calotype.load_config(EXAMPLES / "torchtune.yaml", places)
    dataset = calotype.build_dataset(config)
    loader = torch.utils.data.DataLoader(dataset, batch_size=config["batch_size"], collate_fn=collate)
    assert len(loader) == 6
    batch = next(iter(loader))
    assert {key: (value.dtype, tuple(value.shape)) for key, value in batch.items()} == {
        "img": (torch.float32, (2, 3, 512, 512)),
        "clip_text_tokens": (torch.int64, (2, 77)),
        "t5_text_tokens": (torch.int64, (2, 256)),
    }
    assert "cpelletier" in dataset.caption(0).text


def script_options(folder, **options):
    """What of the script's options the replacement looks at, with the script's defaults."""
    return Namespace(
        **{
            "instance_data_dir": str(folder),
            "instance_prompt": "a photo of sks dog",
            "dataset_name": None,
            "dataset_config_name": None,
            "image_column": "image",
            "caption_column": None,
            "resolution": 64,
            "random_flip": True,
            "train_batch_size": 4,
            "with_prior_preservation": False,
            "cache_latents": False,
            "seed": None,
        }
        | options
    )


@pytest.fixture
def dreambooth(monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES)
    import dreambooth_lora_flux

    return dreambooth_lora_flux.dreambooth_data


def test_dreambooth_gives_what_the_script_reads(home, tmp_path, dreambooth):
    photos = tmp_path / "photos"
    shutil.copytree(home / "photos", photos)
    rows = [json.loads(line) for line in (photos / "metadata.jsonl").read_text().splitlines()]
    rows[0]["text"] = []
    (photos / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    captions = {"a photo of sks dog"} | {text for row in rows for text in row["text"]}

    dataset, loader = dreambooth(script_options(photos), torch.device("cpu"))
    assert len(dataset) == 11 and dataset.custom_instance_prompts
    with loader:
        epochs = [list(loader) for _ in range(3)]
    prompts = []
    for batch in (batch for epoch in epochs for batch in epoch):
        assert list(batch) == ["pixel_values", "prompts"]
        pixels = batch["pixel_values"]
        assert pixels.dtype == torch.float32 and pixels.is_contiguous()
        assert pixels.shape[:2] == (len(batch["prompts"]), 3)
        assert all(side % 16 == 0 for side in pixels.shape[2:])  # FluxPipeline packs latents 2 × 2
        assert -1 <= pixels.min() < -0.5 and pixels.max() <= 1
        prompts += batch["prompts"]
    assert [len(epoch) for epoch in epochs] == [len(loader)] * 3
    assert len(prompts) == 33 and set(prompts) <= captions
    assert prompts.count("a photo of sks dog") == 3
    pictures = {image.numpy().tobytes() for epoch in epochs for batch in epoch for image in batch["pixel_values"]}
    assert 11 < len(pictures) <= 22  # some were seen both ways round


@pytest.mark.parametrize("option", ["with_prior_preservation", "cache_latents", "dataset_config_name"])
def test_dreambooth_refuses_what_it_can_not_serve(home, dreambooth, option):
    with pytest.raises(ValueError, match=f"--{option}: "):
        dreambooth(script_options(home / "photos", **{option: True}), torch.device("cpu"))


def test_diffusers_own_script_trains_on_it(home, tmp_path):
    if DIFFUSERS not in os.environ:
        pytest.skip(f"{DIFFUSERS} names no checkout of diffusers, whose examples are in no package")
    pytest.importorskip("peft")
    source = Path(os.environ[DIFFUSERS], "examples/dreambooth/train_dreambooth_lora_flux.py").read_text()
    statements = r"    train_dataset = DreamBoothDataset\(.*?\n    \)\n\n    train_dataloader = .*?\n    \)\n"
    ours = "    train_dataset, train_dataloader = dreambooth_data(args, accelerator.device)\n"
    script, replaced = re.subn(statements, ours, source, flags=re.DOTALL)
    assert replaced == 1
    (tmp_path / "script.py").write_text("from dreambooth_lora_flux import dreambooth_data\n" + script)
    run(
        home,
        tmp_path / "script.py",
        *("--pretrained_model_name_or_path", tiny_pipeline("flux.1-dev")),
        *("--instance_data_dir", "photos", "--instance_prompt", "a photo", "--random_flip"),
        *("--resolution", 64, "--train_batch_size", 4, "--max_train_steps", 2, "--rank", 4),
        *("--max_sequence_length", 64, "--report_to", "all", "--output_dir", tmp_path / "out"),
    )
    assert (tmp_path / "out" / "pytorch_lora_weights.safetensors").stat().st_size > 1000
