"""The loss against diffusers' own functions: times and their shift, the path, the velocity, the call."""

import math

import diffusers
import pytest
import torch
from diffusers.pipelines.flux.pipeline_flux import calculate_shift
from encoding_helpers import frozen
from tiny_pipelines import tiny_pipeline

from calotype.models import flow
from calotype.models.flux import predict_flux
from calotype.train.networks import load_network, network_of

CPU = torch.device("cpu")


def scheduler(model):
    return diffusers.FlowMatchEulerDiscreteScheduler.from_pretrained(tiny_pipeline(model), subfolder="scheduler")


@pytest.mark.parametrize("tokens", [16, 256, 1024, 4096, 9216])
def test_flux_dev_shifts_by_the_picture_s_tokens_as_its_pipeline_does(tokens):
    config = scheduler("flux.1-dev").config
    mu = flow.shift(config, tokens)
    assert mu == pytest.approx(calculate_shift(tokens), rel=1e-12)
    logits = torch.randn(1000, generator=torch.Generator().manual_seed(1))
    ours = flow.sample_times(1000, mu, rng=torch.Generator().manual_seed(1))
    theirs = scheduler("flux.1-dev").time_shift(mu, 1.0, torch.sigmoid(logits.double())).float()
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    assert ours.min() > 0 and ours.max() < 1


def test_schnell_does_not_shift_and_sd3_shifts_by_a_constant():
    assert flow.shift(scheduler("flux.1-schnell").config, 4096) == 0.0
    config = scheduler("sd3-medium").config
    mu = flow.shift(config, 4096)
    assert mu == pytest.approx(math.log(3.0)) == flow.shift(config, 16)
    # What the scheduler made of its 1000 even times when it was built.
    even = torch.linspace(1.0, 0.001, 1000, dtype=torch.float64)
    torch.testing.assert_close(
        torch.sigmoid(torch.logit(even[1:]) + mu).float(), scheduler("sd3-medium").sigmas[1:1000], rtol=1e-4, atol=1e-6
    )


def test_times_are_logit_normal():
    times = flow.sample_times(200_000, 0.8, rng=torch.Generator().manual_seed(0)).double()
    logits = torch.logit(times)
    assert logits.mean().item() == pytest.approx(0.8, abs=0.01)
    assert logits.std().item() == pytest.approx(1.0, abs=0.01)


def test_the_path_and_its_velocity_are_the_scheduler_s():
    latents, noise = torch.randn(2, 3, 16, 8, 8, generator=torch.Generator().manual_seed(0))
    euler = scheduler("sd3-medium")
    times = euler.sigmas[[10, 500, 900]]
    x_t = flow.interpolate(latents, noise, times)
    torch.testing.assert_close(x_t, euler.scale_noise(latents, euler.timesteps[[10, 500, 900]], noise))
    torch.testing.assert_close(x_t - times.view(-1, 1, 1, 1) * flow.velocity(latents, noise), latents)
    losses = flow.loss(x_t, noise)
    assert losses.shape == (3,)
    torch.testing.assert_close(losses[1], torch.nn.functional.mse_loss(x_t[1], noise[1]))


def test_draws_follow_from_their_key_and_nothing_else():
    before = torch.random.get_rng_state()
    keys = [(0, 0, 0), (0, 0, 1), (0, 1, 0), (1, 0, 0), (-1, 0, 0)]
    drawn = [flow.sample_noise((2, 4), key, device=CPU) for key in keys]
    again = [flow.sample_noise((2, 4), key, device=CPU) for key in keys]
    assert torch.equal(torch.random.get_rng_state(), before)
    for (noise, rng), (same, other) in zip(drawn, again, strict=True):
        assert torch.equal(noise, same)
        assert torch.equal(flow.sample_times(3, 0.0, rng=rng), flow.sample_times(3, 0.0, rng=other))
    assert len({noise.numpy().tobytes() for noise, _ in drawn}) == len(keys)


def test_flux_latents_are_packed_and_placed_as_its_pipeline_does():
    seen = {}

    def transformer(**kwargs):
        seen.update(kwargs)
        return (kwargs["hidden_states"],)

    x_t = torch.randn(2, 16, 8, 12)
    texts = {"prompt_embeds": torch.randn(2, 5, 16), "pooled_prompt_embeds": torch.randn(2, 16)}
    out = predict_flux(transformer, x_t, torch.tensor([0.25, 0.5]), texts, 3.5)
    pipe = diffusers.FluxPipeline
    assert torch.equal(seen["hidden_states"], pipe._pack_latents(x_t, 2, 16, 8, 12))
    assert torch.equal(seen["img_ids"], pipe._prepare_latent_image_ids(2, 4, 6, CPU, torch.float32))
    assert torch.equal(out, x_t) and torch.equal(out, pipe._unpack_latents(seen["hidden_states"], 64, 96, 8))
    assert seen["txt_ids"].shape == (5, 3) and not seen["txt_ids"].any()
    assert seen["guidance"].tolist() == [3.5, 3.5] and seen["timestep"].tolist() == [0.25, 0.5]


@pytest.mark.parametrize("model", ["flux.1-dev", "flux.1-schnell", "sd3-medium"])
def test_what_is_predicted_is_what_the_pipeline_steps_by(model):
    """One Euler step from t = 1 to 0 takes the pipeline from noise to noise minus the velocity."""
    models = frozen(model)
    transformer = load_network(models, torch.float32)
    (record,) = models.encode_texts(["a cat"])
    texts = {key: value[None] for key, value in record.items()}
    noise = torch.randn(1, 16, 8, 8, generator=torch.Generator().manual_seed(3))
    kind = getattr(diffusers, models.family.pipelines[0])
    absent = dict.fromkeys(models.text_components)
    pipe = kind.from_pretrained(models.folder, transformer=transformer, **absent)
    flux = model.startswith("flux")
    stepped = pipe(
        **texts,
        latents=kind._pack_latents(noise, 1, 16, 8, 8) if flux else noise,
        height=64,
        width=64,
        num_inference_steps=1,
        guidance_scale=1.0,
        output_type="latent",
    ).images
    stepped = kind._unpack_latents(stepped, 64, 64, 8) if flux else stepped
    guidance = 1.0 if model == "flux.1-dev" else None
    with torch.no_grad():
        velocity = network_of(models.spec).predict(transformer, noise, torch.ones(1), texts, guidance)
    torch.testing.assert_close(stepped, noise - velocity, rtol=1e-4, atol=1e-5)
