"""Training on the CPU with tiny pipelines: what comes out, what a resume gives, what is refused."""

import json
import math
import os
import shutil

import diffusers
import numpy as np
import pytest
import torch
from accelerate import Accelerator
from encoding_helpers import frozen
from PIL import Image
from safetensors.torch import load_file
from tiny_pipelines import tiny_pipeline
from train_helpers import checkpoints, config, make_folder, run, trained_weights

from calotype import train
from calotype.errors import ConfigError, MissingDependencyError, StoreError
from calotype.models import flow
from calotype.models.objectives import FlowMatching

CAPTIONS = {"caption_transform": {"trigger": "sks", "drop": 0.2}, "img_transform": {"horizontal_flip": 0.5}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = make_folder(tmp_path_factory.mktemp("data") / "photos")
    return make_folder(folder, names=("motorcycle_left.png", "retina.jpg", "ihc.png"), size=(72, 96))


@pytest.fixture(scope="module")
def lora(folder, tmp_path_factory):
    """One run that falls far enough to be seen: its output folder and its report."""
    output = tmp_path_factory.mktemp("lora")
    report = run(
        folder,
        output,
        max_steps=60,
        log_every=10,
        lora_alpha=8,
        dataset=CAPTIONS,
        sample_prompts=["a photo of {trigger}", "a cup"],
        sample_steps=3,
        sample_every=30,
        checkpoint_every=20,
        trackers=["tensorboard"],
    )
    return output, report


def pictures(pipe, prompt, seed):
    return np.asarray(
        pipe(
            prompt,
            height=48,
            width=80,
            num_inference_steps=3,
            guidance_scale=3.5,
            max_sequence_length=32,
            generator=torch.Generator().manual_seed(seed),
        ).images[0]
    ).astype(int)


def test_the_loss_falls(lora):
    _, report = lora
    assert [step for step, _ in report.losses] == [10, 20, 30, 40, 50, 60]
    assert report.last_loss < 0.9 * report.first_loss
    assert 0 < report.data_wait < 1 and report.images_per_second > 0


def test_the_lora_loads_into_the_pipeline_and_makes_the_very_samples_of_the_training(lora):
    output, report = lora
    pipe = diffusers.FluxPipeline.from_pretrained(tiny_pipeline("flux.1-dev"))
    pipe.set_progress_bar_config(disable=True)
    bare = pictures(pipe, "a photo of sks", seed=0)
    pipe.load_lora_weights(output)
    for number, prompt in enumerate(["a photo of sks", "a cup"]):
        made = pictures(pipe, prompt, seed=number)
        sample = np.asarray(Image.open(output / "samples" / f"step-00000060-{number}.png")).astype(int)
        assert abs(made - sample).max() <= 2
        assert number or abs(made - bare).mean() > 1
    assert report.result == str(output / "pytorch_lora_weights.safetensors")
    assert [path.rsplit("-", 1)[-1] for path in report.samples] == ["0.png", "1.png"]


def test_checkpoints_are_whole_the_last_two_are_kept_and_tensorboard_has_the_loss(lora):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    output, report = lora
    assert checkpoints(output) == ["step-00000040", "step-00000060"]
    last = output / "checkpoints" / "step-00000060"
    assert load_file(last / "pytorch_lora_weights.safetensors").keys() == load_file(report.result).keys()
    events = EventAccumulator(str(output / "logs" / "calotype")).Reload()
    logged = {event.step: event.value for event in events.Scalars("loss")}
    assert logged == pytest.approx(dict(report.losses))


class Interrupted(Exception):
    pass


@pytest.mark.parametrize("method", ["lora", "full"])
def test_an_interrupted_and_resumed_run_ends_with_the_very_same_weights(folder, tmp_path, method):
    options = {
        "dataset": CAPTIONS,
        "method": method,
        "max_steps": 7,
        "checkpoint_every": 3,
        "gradient_accumulation_steps": 2,
        "lr_scheduler": "cosine",
        "lr_warmup_steps": 2,
        "ema_decay": 0.9,
    }

    def stop(progress):
        if progress.step == 5:
            raise Interrupted

    with pytest.raises(Interrupted):
        run(folder, tmp_path / "resumed", show=stop, **options)
    assert checkpoints(tmp_path / "resumed") == ["step-00000003"]
    said = []
    rest = run(folder, tmp_path / "resumed", resume=True, tell=said.append, **options)
    whole = run(folder, tmp_path / "whole", **options)
    assert any(line.startswith("Resuming from step 3") for line in said)
    assert rest.losses == whole.losses[3:]
    resumed, uninterrupted = (trained_weights(tmp_path / name, 7) for name in ("resumed", "whole"))
    assert resumed.keys() == uninterrupted.keys()
    assert all(torch.equal(resumed[name], uninterrupted[name]) for name in resumed)
    ends = [
        torch.load(tmp_path / name / "checkpoints" / "step-00000007" / "optimizer.pt", weights_only=True)
        for name in ("resumed", "whole")
    ]
    shadows = [end["average"]["shadow_params"] for end in ends]
    assert all(torch.equal(one, other) for one, other in zip(*shadows, strict=True))
    assert not all(torch.equal(one, other) for one, other in zip(shadows[0], resumed.values(), strict=True))


def test_a_whole_transformer_is_saved_as_from_pretrained_loads_it(folder, tmp_path):
    report = run(folder, tmp_path, method="full", max_steps=2, learning_rate=1e-3)
    made = diffusers.FluxTransformer2DModel.from_pretrained(tmp_path, subfolder="transformer").state_dict()
    before = diffusers.FluxTransformer2DModel.from_pretrained(tiny_pipeline("flux.1-dev"), subfolder="transformer")
    weights = trained_weights(tmp_path, 2)
    assert report.result == str(tmp_path / "transformer") and made.keys() == weights.keys()
    assert all(torch.equal(made[name], weights[name]) for name in made)
    changed = [not torch.equal(value, made[name]) for name, value in before.state_dict().items()]
    assert sum(changed) > 0.9 * len(changed)


@pytest.mark.parametrize("model", ["flux.1-schnell", "sd3-medium"])
def test_the_other_models_of_the_table(folder, tmp_path, model):
    report = run(folder, tmp_path, model=model, max_steps=2, sample_prompts=["a cat"], sample_steps=2)
    kind = getattr(diffusers, frozen(model).family.pipelines[0])
    pipe = kind.from_pretrained(tiny_pipeline(model))
    pipe.load_lora_weights(tmp_path)
    adapted = [name for name, _ in pipe.transformer.named_modules() if name.endswith("lora_A")]
    assert adapted and len(report.samples) == 1


def test_validation_is_fixed_and_of_pictures_that_are_not_trained_on(folder, tmp_path):
    options = {"dataset": {**CAPTIONS, "validation": 0.4}, "validation_every": 2}
    still = run(folder, tmp_path / "still", learning_rate=0.0, max_steps=4, **options)
    assert [step for step, _ in still.validation] == [0, 2, 4]
    assert len({loss for _, loss in still.validation}) == 1
    assert len({loss for _, loss in still.losses}) == 4
    moved = run(folder, tmp_path / "moved", max_steps=20, validation_every=20, dataset=options["dataset"])
    assert moved.validation[0] == still.validation[0]
    assert moved.validation[-1][1] < 0.97 * moved.validation[0][1]


def test_accumulated_batches_are_one_step_and_each_has_noise_of_its_own(folder, tmp_path, monkeypatch):
    seen, keys, sample_noise = [], [], flow.sample_noise

    def noted(shape, key, *, device):
        keys.append(key)
        return sample_noise(shape, key, device=device)

    monkeypatch.setattr(flow, "sample_noise", noted)
    report = run(folder, tmp_path, gradient_accumulation_steps=3, max_steps=2, show=seen.append)
    assert [progress.step for progress in seen] == [1, 2] and report.steps == 2
    assert len(keys) == len(set(keys)) == 6
    assert len(trained_weights(tmp_path, 2)) > 0
    assert "loss" in str(seen[0]) and "data wait" in str(seen[0]) and "left" in str(seen[0])


def test_accumulated_batches_have_the_gradient_of_one_that_is_as_large_short_ones_too(tmp_path, monkeypatch):
    """Five images: batches of 2, 2 and 1 in a step, against one batch of 6 that is one short."""
    photos = make_folder(
        tmp_path / "photos", names=("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "ihc.png")
    )
    gradients, clip = [], Accelerator.clip_grad_norm_

    def clip_grad_norm(self, parameters, *args):
        parameters = list(parameters)
        gradients.append([parameter.grad.clone() for parameter in parameters])
        return clip(self, parameters, *args)

    def same_noise(shape, key, *, device):  # whatever batch a sample is in
        return torch.linspace(-1, 1, math.prod(shape[1:])).view(1, *shape[1:]).expand(shape), None

    monkeypatch.setattr(Accelerator, "clip_grad_norm_", clip_grad_norm)
    monkeypatch.setattr(flow, "sample_noise", same_noise)
    monkeypatch.setattr(FlowMatching, "sample_times", lambda self, count, tokens, *, rng: torch.full((count,), 0.4))
    reports = [
        run(
            photos,
            tmp_path / f"{size}",
            max_steps=1,
            gradient_accumulation_steps=together,
            method="full",
            loader={"batch_size": size},
        )
        for size, together in ((2, 3), (6, 1))
    ]
    accumulated, whole = gradients
    assert len(whole) > 10 and max(gradient.abs().max() for gradient in whole) > 1e-4
    for one, other in zip(accumulated, whole, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-7)
    assert reports[0].first_loss == pytest.approx(reports[1].first_loss, rel=1e-5)


def test_activations_computed_again_change_no_bit(folder, tmp_path):
    for name, again in (("kept", False), ("again", True)):
        run(folder, tmp_path / name, max_steps=2, gradient_checkpointing=again)
    kept, again = (trained_weights(tmp_path / name, 2) for name in ("kept", "again"))
    assert all(torch.equal(kept[name], again[name]) for name in kept)


def test_nothing_global_is_left_changed(folder, tmp_path):
    before = torch.random.get_rng_state()
    run(folder, tmp_path, max_steps=1)
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"lerning_rate": 1e-4}, "train: unknown option 'lerning_rate'; did you mean 'learning_rate'"),
        ({"learning_rate": "1e-4"}, r"train.learning_rate: found '1e-4'.*write 1.0e-4"),
        ({"max_steps": 0}, "train.max_steps: found 0, expected a whole number, 1 or more"),
        ({"method": "lokr"}, "train.method: found 'lokr', expected lora or full"),
        ({"ema_decay": 1}, "train.ema_decay: found 1"),
        ({"sample_prompts": "a cat"}, "train.sample_prompts: found 'a cat', expected a list of texts"),
        (
            {"sample_prompts": ["a [trigger]"]},
            r"train.sample_prompts: found 'a \[trigger\]', and there is no caption_transform.trigger",
        ),
        ({"sample_size": [64]}, r"train.sample_size: found \[64\]"),
        ({"mixed_precision": "fp8"}, "expected bf16 or no"),
        ({"lr_scheduler": "cosin"}, "train.lr_scheduler: found 'cosin', expected one of linear, cosine"),
        (
            {"lora_targets": ["attn.to_x"]},
            r"no layer's name ends in one of \['attn.to_x'\]; the layers are .*attn.to_q",
        ),
        ({"trackers": ["tensorbord"]}, "train.trackers: found 'tensorbord', expected names .*tensorboard"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_wrong_options_are_errors_that_name_the_right_ones(folder, tmp_path, option, message):
    with pytest.raises(ConfigError, match=message):
        run(folder, tmp_path, **option)
    assert not (tmp_path / "checkpoints").exists()


def test_a_tracker_that_is_not_installed_is_named(folder, tmp_path):
    with pytest.raises(MissingDependencyError, match="wandb"):
        run(folder, tmp_path, trackers=["wandb"])


def test_a_model_without_a_recipe_is_refused(folder, tmp_path):
    with pytest.raises(ConfigError, match=r"does not train chroma.* .*flux.1, sd3, sdxl, sd-1"):
        run(folder, tmp_path, model="chroma", encodings={"max_sequence_length": None})


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers' Euler under numpy 2
@pytest.mark.parametrize("model", ["sdxl", "sd-1.5"])
def test_a_unet_s_lora_loads_into_its_pipeline(folder, tmp_path, model):
    """Trained from noise to noise, sampled on the way, and read by diffusers and by what knows its names."""
    options = {"model": model, "encodings": {"max_sequence_length": None}, "dataset": CAPTIONS}
    report = run(folder, tmp_path, max_steps=4, sample_prompts=["a cup"], sample_steps=3, **options)
    assert np.asarray(Image.open(report.samples[0])).std() > 0
    pipe = diffusers.DiffusionPipeline.from_pretrained(tiny_pipeline(model), safety_checker=None)
    pipe.set_progress_bar_config(disable=True)

    def pictured():
        generator = torch.Generator().manual_seed(3)
        return pipe(
            "a cup", height=64, width=64, num_inference_steps=3, generator=generator, output_type="latent"
        ).images

    before = pictured()
    pipe.load_lora_weights(tmp_path)
    assert (pictured() - before).abs().max() > 0.05
    names = load_file(report.result)
    assert all(name.startswith("lora_unet_") for name in names) and len(names) > 10


def test_a_whole_unet_is_a_folder_that_diffusers_loads(folder, tmp_path):
    options = {"model": "sdxl", "encodings": {"max_sequence_length": None}, "method": "full"}
    report = run(folder, tmp_path, max_steps=60, log_every=10, learning_rate=0.002, **options)
    assert report.last_loss < 0.8 * report.first_loss
    made = diffusers.UNet2DConditionModel.from_pretrained(tmp_path, subfolder="unet").state_dict()
    before = diffusers.UNet2DConditionModel.from_pretrained(tiny_pipeline("sdxl"), subfolder="unet").state_dict()
    assert made.keys() == before.keys() and any(not torch.equal(made[name], before[name]) for name in made)


def test_an_output_folder_is_not_trained_over(folder, tmp_path):
    run(folder, tmp_path, max_steps=1)
    with pytest.raises(ConfigError, match="--resume continues it, output_dir="):
        run(folder, tmp_path, max_steps=2)
    with pytest.raises(ConfigError, match=r"learning_rate was 0\.01, is 0\.5"):
        run(folder, tmp_path, max_steps=2, learning_rate=0.5, resume=True)
    assert run(folder, tmp_path, max_steps=2, resume=True).steps == 2
    nothing_left = run(folder, tmp_path, max_steps=2, resume=True)
    assert nothing_left.losses == () and nothing_left.steps == 2
    state = tmp_path / "checkpoints" / "step-00000002" / "state.json"
    state.write_text("{")
    said = []
    again = run(folder, tmp_path, max_steps=2, resume=True, tell=said.append)
    damaged, resumed = (line for line in said if "step-0" in line)
    assert "step-00000002: is damaged" in damaged and resumed.startswith("Resuming from step 1") and again.steps == 2


def test_a_second_run_into_the_same_folder_is_refused_while_the_first_lives(folder, tmp_path):
    def second(progress):
        with pytest.raises(ConfigError, match=rf"{tmp_path}: another run is writing here \(process {os.getpid()} on"):
            run(folder, tmp_path, max_steps=1)

    run(folder, tmp_path, max_steps=1, show=second)
    assert run(folder, tmp_path, max_steps=2, resume=True).steps == 2


def test_the_ledger_of_a_run_names_each_thing_once_and_survives_a_resume(tmp_path):
    photos = make_folder(tmp_path / "photos")
    (photos / "broken.png").write_bytes((photos / "coffee.png").read_bytes()[:900])
    (photos / "broken.txt").write_text("a broken photo")
    (photos / "rocket.txt").write_text("very " * 100 + "long")
    options = {"max_steps": 2, "dataset": {"validation": 0.4}, "validation_every": 10}
    report = run(photos, tmp_path / "out", **options)
    lines = [json.loads(line) for line in (tmp_path / "out" / "ledger.jsonl").read_text().splitlines()]
    assert report.ledger["unreadable"] == 1 and report.ledger_file == str(tmp_path / "out" / "ledger.jsonl")
    assert [line["id"] for line in lines if line["kind"] == "unreadable"] == ["broken.png"]
    assert [line["id"] for line in lines if line["kind"] == "caption_cut"] == ["rocket.png"]
    assert report.to_json()["ledger"] == report.ledger
    again = run(photos, tmp_path / "out", **options | {"max_steps": 3}, resume=True)
    more = [json.loads(line) for line in (tmp_path / "out" / "ledger.jsonl").read_text().splitlines()]
    assert more[: len(lines)] == lines and again.ledger == report.ledger
    assert [line["id"] for line in more if line["kind"] == "unreadable"] == ["broken.png"]
    shutil.rmtree(tmp_path / "out" / "checkpoints")
    run(photos, tmp_path / "out", **options | {"max_steps": 1})  # another run: it begins a ledger of its own
    (line,) = (tmp_path / "out" / "ledger.jsonl").read_text().splitlines()
    assert json.loads(line)["kind"] == "caption_cut"


def test_a_kill_while_a_checkpoint_is_written_leaves_the_one_before(folder, tmp_path, monkeypatch):
    run(folder, tmp_path, max_steps=1)
    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", lambda *_: (_ for _ in ()).throw(Interrupted))
        with pytest.raises(Interrupted):
            run(folder, tmp_path, max_steps=2, resume=True)
    assert checkpoints(tmp_path) == ["step-00000001"]


def test_without_room_for_the_models_what_is_not_encoded_is_an_error(folder, tmp_path):
    made = config(folder, output_dir=str(tmp_path), encodings={"store": str(tmp_path / "store"), "on_the_fly": False})
    with pytest.raises(StoreError):
        train.run(made)
