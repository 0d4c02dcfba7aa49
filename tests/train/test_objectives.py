"""Objectives against diffusers' own schedulers and pipelines."""

import diffusers
import pytest
import torch
from encoding_helpers import frozen
from tiny_pipelines import tiny_pipeline

from calotype.errors import ConfigError
from calotype.models.objectives import Denoising, FlowMatching
from calotype.train.networks import load_network, load_objective, network_of

TIMES = torch.tensor([0.0, 0.25, 0.5, 0.9994, 1.0])


def pictures():
    return torch.randn(2, len(TIMES), 4, 8, 8, generator=torch.Generator().manual_seed(0))


def ddpm(**options):
    return diffusers.DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", **options)


def test_times_name_the_schedule_s_steps():
    assert Denoising(ddpm()).timesteps(TIMES).tolist() == [0, 250, 500, 999, 999]
    times = Denoising(ddpm()).sample_times(200_000, 4096, rng=torch.Generator().manual_seed(0))
    steps = Denoising(ddpm()).timesteps(times)
    assert steps.min() == 0 and steps.max() == 999
    counts = torch.bincount(steps // 100, minlength=10).double() / len(steps)
    torch.testing.assert_close(counts, torch.full((10,), 0.1, dtype=torch.float64), atol=0.003, rtol=0)


def test_noise_is_added_by_the_schedule_and_is_the_answer():
    latents, noise = pictures()
    objective = Denoising(ddpm())
    kept = torch.cumprod(1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2, 0)
    kept = kept[objective.timesteps(TIMES)].view(-1, 1, 1, 1).float()
    noised = objective.add_noise(latents, noise, TIMES)
    torch.testing.assert_close(noised, kept.sqrt() * latents + (1 - kept).sqrt() * noise, rtol=1e-4, atol=1e-5)
    assert objective.target(latents, noise, TIMES) is noise
    velocity = Denoising(ddpm(prediction_type="v_prediction")).target(latents, noise, TIMES)
    torch.testing.assert_close(velocity, kept.sqrt() * noise - (1 - kept).sqrt() * latents, rtol=1e-4, atol=1e-5)


def test_another_answer_is_refused():
    with pytest.raises(ConfigError, match=r"'sample'; expected epsilon or v_prediction"):
        Denoising(ddpm(prediction_type="sample"))


@pytest.mark.parametrize(
    ("model", "kind"), [("flux.1-dev", FlowMatching), ("sd3-medium", FlowMatching), ("sdxl", Denoising)]
)
def test_a_pipeline_s_objective_is_its_family_s(model, kind):
    assert type(load_objective(frozen(model))) is kind


@pytest.mark.parametrize("model", ["sdxl", "sd-1.5"])
def test_what_is_predicted_is_what_the_pipeline_steps_by(model):
    """One DDIM step from the last step of the schedule takes the pipeline to the image that the answer implies."""
    models = frozen(model)
    unet, objective = load_network(models, torch.float32), load_objective(models)
    (record,) = models.encode_texts(["a cat"])
    texts = {key: value[None] for key, value in record.items()}
    noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(3))
    options = {"safety_checker": None} if model == "sd-1.5" else {"add_watermarker": False}
    pipe = diffusers.DiffusionPipeline.from_pretrained(tiny_pipeline(model), unet=unet, **options)
    pipe.scheduler = diffusers.DDIMScheduler.from_config(
        pipe.scheduler.config, timestep_spacing="trailing", clip_sample=False, set_alpha_to_one=True
    )
    pipe.set_progress_bar_config(disable=True)
    stepped = pipe(
        **texts, latents=noise, height=64, width=64, num_inference_steps=1, guidance_scale=1.0, output_type="latent"
    ).images
    sizes = torch.tensor([[64, 64]])
    told = texts | {"original_size": sizes, "crop_top_left": 0 * sizes, "target_size": sizes}
    times = torch.ones(1)
    with torch.no_grad():
        answer = network_of(models.spec).predict(unet, noise, objective.timesteps(times), told, None)
    implied = objective.add_noise(torch.zeros_like(noise), noise, times) / noise  # √(1 − ᾱ)
    kept = (1 - implied.square()).sqrt()
    torch.testing.assert_close(stepped, (noise - implied * answer) / kept, rtol=1e-3, atol=1e-3)
