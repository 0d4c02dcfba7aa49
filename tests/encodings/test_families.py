"""What is kept of texts and images becomes, in training, what each pipeline computes itself.

On one side a pipeline of diffusers, loaded whole, and its own calls; on the other the frozen models' records and the
family's training side. Pipelines are tiny and random, but of the real classes, with the real numbers of channels.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    diffusers = pytest.importorskip("diffusers", exc_type=ImportError)
    pytest.importorskip("transformers", exc_type=ImportError)

from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from tiny_pipelines import NAMES, tiny_pipeline

from calotype.encodings.frozen import FrozenModels
from calotype.errors import ConfigError
from calotype.models import ModelFamily, get_family, get_spec, list_families
from calotype.models.family import sample_moments, trim
from calotype.models.z_image import ZImage
from calotype.types import Geometry

# Chroma's transformer, as the whole pipeline loads it.
pytestmark = pytest.mark.filterwarnings("ignore:`FluxPosEmbed` is deprecated:FutureWarning")

TEXTS = ["a photo of a tabby cat on a wooden table", "", "An astronaut smiles, in orange; " * 12]
MASKED = {
    "qwen-image": "prompt_embeds_mask",
    "z-image": "prompt_embeds_mask",
    "chroma": "prompt_attention_mask",
    "pixart-sigma": "prompt_attention_mask",
    "sana": "prompt_attention_mask",
}
ONE_EACH = [name for name in NAMES if name != "flux.1-schnell"]
CPU = torch.device("cpu")


@cache
def frozen(name: str, dtype: torch.dtype = torch.float32, latents: Any = "moments") -> FrozenModels:
    return FrozenModels(tiny_pipeline(name), dtype=dtype, latents=latents)


@cache
def pipeline(name: str) -> Any:
    """The whole pipeline, as its users load it."""
    return diffusers.DiffusionPipeline.from_pretrained(tiny_pipeline(name))


@pytest.fixture(scope="module")
def photos(skimage_data) -> Tensor:
    """Two real photos: uint8 (2, 3, 64, 96)."""
    images = [Image.open(skimage_data / name).convert("RGB").resize((96, 64)) for name in ("coffee.png", "chelsea.png")]
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()


# -- Texts -----------------------------------------------------------------------------------------------------------


def called(name: str, pipe: Any) -> dict[str, Any]:
    """The pipeline's own call, as diffusers' training scripts make it."""
    with torch.no_grad():
        match name:
            case "flux.1-dev" | "flux.1-schnell":
                length = 512 if name == "flux.1-dev" else 256
                embeds, pooled, _ = pipe.encode_prompt(list(TEXTS), None, max_sequence_length=length)
                return {"prompt_embeds": embeds, "pooled_prompt_embeds": pooled}
            case "sd-1.5":
                embeds, _ = pipe.encode_prompt(list(TEXTS), CPU, 1, False)
                return {"prompt_embeds": embeds}
            case "sdxl":
                embeds, _, pooled, _ = pipe.encode_prompt(list(TEXTS), do_classifier_free_guidance=False)
                return {"prompt_embeds": embeds, "pooled_prompt_embeds": pooled}
            case "sd3-medium":
                embeds, _, pooled, _ = pipe.encode_prompt(list(TEXTS), None, None, do_classifier_free_guidance=False)
                return {"prompt_embeds": embeds, "pooled_prompt_embeds": pooled}
            case "qwen-image":
                embeds, mask = pipe.encode_prompt(list(TEXTS), max_sequence_length=512)
                return {"prompt_embeds": embeds, "prompt_embeds_mask": mask}
            case "z-image":
                embeds, _ = pipe.encode_prompt(list(TEXTS), do_classifier_free_guidance=False)
                return {"prompt_embeds": embeds}
            case "flux.2-dev":
                embeds, _ = pipe.encode_prompt(list(TEXTS))
                return {"prompt_embeds": embeds}
            case "chroma":
                embeds, _, mask, *_ = pipe.encode_prompt(list(TEXTS), do_classifier_free_guidance=False)
                return {"prompt_embeds": embeds, "prompt_attention_mask": mask}
            case "pixart-sigma":
                embeds, mask, _, _ = pipe.encode_prompt(list(TEXTS), do_classifier_free_guidance=False)
                return {"prompt_embeds": embeds, "prompt_attention_mask": mask}
            case "sana":
                default = inspect.signature(type(pipe).__call__).parameters["complex_human_instruction"].default
                embeds, mask, _, _ = pipe.encode_prompt(
                    list(TEXTS), do_classifier_free_guidance=False, complex_human_instruction=default
                )
                return {"prompt_embeds": embeds, "prompt_attention_mask": mask}
    raise AssertionError(name)


def same(family: ModelFamily, batch: dict[str, Tensor], expected: dict[str, Any]) -> None:
    """Bit for bit, on real tokens where a mask says which are."""
    for field in family.texts:
        theirs, ours = expected[field.key], batch[field.key]
        if field.mask is None:
            assert torch.equal(ours, theirs)
        elif isinstance(theirs, list):
            found = ZImage.as_list(ours, batch[field.mask])
            assert all(map(torch.equal, found, theirs)) and len(found) == len(theirs)
        else:
            mask = expected[field.mask]
            length = ours.shape[1]
            assert torch.equal(batch[field.mask].to(mask.dtype), mask[:, :length])
            assert not mask[:, length:].any()
            assert field.mask_dtype == torch.bool or batch[field.mask].dtype == mask.dtype
            real = batch[field.mask].bool()
            assert torch.equal(ours[real], theirs[:, :length][real])
            assert not ours[~real].any()


@pytest.mark.parametrize("name", NAMES)
def test_texts_are_the_pipeline_s_own(name):
    family, records = frozen(name).family, frozen(name).encode_texts(TEXTS)
    same(family, family.batch_texts(records), called(name, pipeline(name)))


@pytest.mark.parametrize("name", ONE_EACH)
def test_in_bfloat16_texts_stay_near(name):
    """Within 5 % of the norm: what eight bits of mantissa leave through a model's layers (30 of them for FLUX.2)."""
    exact, rounded = (frozen(name, dtype).encode_texts(TEXTS) for dtype in (torch.float32, torch.bfloat16))
    for one, other in zip(exact, rounded, strict=True):
        for key, tensor in one.items():
            assert tensor.shape == other[key].shape and other[key].dtype == torch.bfloat16
            assert (other[key].float() - tensor).norm() <= 0.05 * tensor.norm()


@pytest.mark.parametrize("name", NAMES)
def test_a_text_s_record_is_what_the_table_says(name):
    spec, family = get_spec(name), frozen(name).family
    records = frozen(name).encode_texts(TEXTS)
    for output, field in zip(spec.encodings.texts, family.texts, strict=True):
        assert output.key == field.key
        assert output.trimmed == (field.mask is not None) == (name in MASKED)
        for record in records:
            tokens = record[field.key].shape[0] if record[field.key].ndim == 2 else None
            if output.trimmed:
                assert tokens is not None and output.tokens is not None and 0 < tokens <= output.tokens
            else:
                assert tokens == output.tokens
    if name in MASKED:
        lengths = [len(record["prompt_embeds"]) for record in records]
        assert lengths[1] < lengths[0] < lengths[2]


@pytest.mark.parametrize("name", MASKED)
def test_padded_to_a_length(name):
    """For shapes that never change: the pipeline's own full length, where it pads to one."""
    family, records = frozen(name).family, frozen(name).encode_texts(TEXTS)
    longest = get_spec(name).encodings.texts[0].tokens
    batch = family.batch_texts(records, length=longest)
    assert batch["prompt_embeds"].shape[:2] == batch[MASKED[name]].shape == (3, longest)
    short = family.batch_texts(records)
    length = short["prompt_embeds"].shape[1]
    for key in short:
        assert torch.equal(batch[key][:, :length], short[key]) and not batch[key][:, length:].any()
    with pytest.raises(ConfigError, match=r"length: found 3 tokens, and a text's prompt_embeds has \d+"):
        family.batch_texts(records, length=3)


def predicted(name: str, pipe: Any, embeds: Tensor, mask: Tensor) -> Tensor:
    """One step of the transformer, called as its pipeline calls it."""
    channels, (h, w) = get_spec(name).encodings.latent_channels, (4, 4)
    noise = torch.randn((len(embeds), channels, h, w), generator=torch.Generator().manual_seed(0))
    time = torch.full((len(embeds),), 500.0)
    with torch.no_grad():
        if name in ("pixart-sigma", "sana"):
            extra = {"added_cond_kwargs": {"resolution": None, "aspect_ratio": None}} if name == "pixart-sigma" else {}
            return pipe.transformer(
                noise, encoder_hidden_states=embeds, encoder_attention_mask=mask, timestep=time, **extra
            )[0]
        packed = type(pipe)._pack_latents(noise, len(embeds), channels, h, w)
        if name == "qwen-image":
            return pipe.transformer(
                packed,
                encoder_hidden_states=embeds,
                encoder_hidden_states_mask=mask,
                timestep=time / 1000,
                img_shapes=[[(1, h // 2, w // 2)]] * len(embeds),
            )[0]
        assert name == "chroma"
        image = torch.ones(packed.shape[:2], dtype=torch.bool)
        return pipe.transformer(
            packed,
            encoder_hidden_states=embeds,
            timestep=time / 1000,
            txt_ids=torch.zeros(embeds.shape[1], 3),
            img_ids=pipe._prepare_latent_image_ids(len(embeds), h // 2, w // 2, CPU, torch.float32),
            attention_mask=torch.cat([mask, image], dim=1),
        )[0]


@pytest.mark.parametrize("name", [name for name in MASKED if name != "z-image"])  # that one takes a list as it is
def test_the_transformer_does_not_miss_the_padding(name):
    """Why trimming is right: all of the pipeline's positions with its mask, or the real tokens: the same prediction."""
    pipe, family = pipeline(name), frozen(name).family
    expected = called(name, pipe)
    batch = family.batch_texts(frozen(name).encode_texts(TEXTS))
    mask = expected[MASKED[name]].to(batch[MASKED[name]].dtype)
    theirs = predicted(name, pipe, expected["prompt_embeds"], mask)
    ours = predicted(name, pipe, batch["prompt_embeds"], batch[MASKED[name]])
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    unmasked = predicted(name, pipe, batch["prompt_embeds"], torch.ones_like(batch[MASKED[name]]))
    assert not torch.allclose(unmasked, theirs, rtol=1e-4, atol=1e-5)  # the mask does something


def test_padding_on_the_left_is_refused():
    mask = torch.tensor([[0, 1, 1], [1, 1, 1]])
    with pytest.raises(ConfigError, match="prompt_embeds: the pipeline's tokenizer pads on the left"):
        trim("prompt_embeds", torch.zeros(2, 3, 4), mask)


# -- Which texts are cut -----------------------------------------------------------------------------------------------


LIMITS = {
    "flux.1-dev": {"tokenizer": 77, "tokenizer_2": 512},
    "flux.1-schnell": {"tokenizer": 77, "tokenizer_2": 256},
    "sd-1.5": {"tokenizer": 77},
    "sdxl": {"tokenizer": 77, "tokenizer_2": 77},
    "sd3-medium": {"tokenizer": 77, "tokenizer_2": 77, "tokenizer_3": 256},
    "qwen-image": {"tokenizer": 512},
    "z-image": {"tokenizer": 512},
    "flux.2-dev": {"tokenizer": 512},
    "chroma": {"tokenizer": 512},
    "pixart-sigma": {"tokenizer": 300},
    "sana": {"tokenizer": 300},
}


@pytest.mark.parametrize("name", NAMES)
def test_which_texts_are_cut(name):
    long = "a tabby cat on a wooden table and " * 80
    none, cuts = frozen(name).cut_texts(["a cat", long])
    assert none == ()
    assert {cut.tokenizer: cut.limit for cut in cuts} == LIMITS[name]
    assert all(cut.tokens > 600 for cut in cuts)


@pytest.mark.parametrize("name", MASKED)
def test_the_count_is_exact(name):
    """Against what is kept: the tokens of each text as far as the limit, for Chroma one more."""
    models, (limit,) = frozen(name), LIMITS[name].values()
    texts = ["a" + " a" * words for words in (0, 3, limit // 2 - 3, limit // 2 - 1, limit - 1, limit, limit + 40)]
    (count,) = models.family.token_counts(models._tokenizers(), texts, max_sequence_length=limit)
    kept = [len(record["prompt_embeds"]) for record in models.encode_texts(texts)]
    assert kept == [min(tokens + (name == "chroma"), limit) for tokens in count.tokens]
    assert [bool(cuts) for cuts in models.cut_texts(texts)] == [tokens > limit for tokens in count.tokens]
    assert min(count.tokens) < limit < max(count.tokens)


@pytest.mark.parametrize("name", [name for name in LIMITS if get_spec(name).tokenizers])
def test_counts_are_those_of_the_pipeline_s_tokenizers(name):
    """calotype's own tokenizers count, as in the dataset and `check`."""
    texts = ["a cat! " * 90, "一只猫 и кот, naïve 🙂 " * 60, "<|endoftext|> " * 600]
    pipe = pipeline(name)
    for text, cuts in zip(texts, frozen(name).cut_texts(texts), strict=True):
        for cut in cuts:
            assert cut.tokens == len(getattr(pipe, cut.tokenizer)(text, verbose=False).input_ids)
        assert cuts


# -- Images ----------------------------------------------------------------------------------------------------------


def flux_like(vae: Any, z: Tensor) -> Tensor:
    """train_dreambooth_lora_flux.py, _sd3.py, _z_image.py."""
    return (z - vae.config.shift_factor) * vae.config.scaling_factor


def scaled(vae: Any, z: Tensor) -> Tensor:
    """train_text_to_image.py, train_dreambooth_lora_sdxl.py, _sana.py."""
    return z * vae.config.scaling_factor


def qwen_like(vae: Any, z: Tensor) -> Tensor:
    """train_dreambooth_lora_qwen_image.py."""
    mean = torch.tensor(vae.config.latents_mean).view(1, vae.config.z_dim, 1, 1, 1)
    std = 1.0 / torch.tensor(vae.config.latents_std).view(1, vae.config.z_dim, 1, 1, 1)
    return (z - mean) * std


def flux2_like(vae: Any, z: Tensor) -> Tensor:
    """train_dreambooth_lora_flux2.py."""
    mean = vae.bn.running_mean.view(1, -1, 1, 1)
    std = torch.sqrt(vae.bn.running_var.view(1, -1, 1, 1) + vae.config.batch_norm_eps)
    return (diffusers.Flux2Pipeline._patchify_latents(z) - mean) / std


FORMULAS: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "flux.1-dev": flux_like,
    "flux.1-schnell": flux_like,
    "sd-1.5": scaled,
    "sdxl": scaled,
    "sd3-medium": flux_like,
    "qwen-image": qwen_like,
    "z-image": flux_like,
    "flux.2-dev": flux2_like,
    "chroma": flux_like,
    "pixart-sigma": scaled,
    "sana": scaled,
}


def encoded(name: str, photos: Tensor) -> Any:
    """What the whole pipeline's autoencoder gives for the photos."""
    img = photos.float() / 127.5 - 1
    with torch.no_grad():
        return pipeline(name).vae.encode(img.unsqueeze(2) if name == "qwen-image" else img)


@pytest.mark.parametrize("name", NAMES)
def test_latents_of_the_mean_are_those_of_training(name, photos):
    models, theirs = frozen(name, latents="mean"), encoded(name, photos)
    z = theirs.latent if name == "sana" else theirs.latent_dist.mode()
    expected = FORMULAS[name](pipeline(name).vae, z)
    record = models.encode_pictures(photos)
    assert list(record) == ["latents"]
    ours = models.family.latents(record["latents"], models.scaling)
    assert torch.equal(ours, expected) and ours.dtype == torch.float32


@pytest.mark.parametrize("name", [name for name in NAMES if name != "sana"])
def test_latents_drawn_with_a_noise_are_those_of_training(name, photos):
    models, posterior = frozen(name), encoded(name, photos).latent_dist
    z = posterior.sample(torch.Generator().manual_seed(7))
    noise = torch.randn(z.shape, generator=torch.Generator().manual_seed(7))
    record = models.encode_pictures(photos)
    assert list(record) == ["moments"]
    drawn = sample_moments(record["moments"], noise.view(record["moments"].chunk(2, dim=1)[0].shape))
    assert torch.equal(models.family.latents(drawn, models.scaling), FORMULAS[name](pipeline(name).vae, z))


def test_the_formula_of_a_draw_is_diffusers_own():
    """Also where the log variance leaves the range it is held in."""
    moments = torch.randn((2, 8, 3, 5), generator=torch.Generator().manual_seed(0)) * 40
    theirs = DiagonalGaussianDistribution(moments).sample(torch.Generator().manual_seed(1))
    noise = torch.randn((2, 4, 3, 5), generator=torch.Generator().manual_seed(1))
    assert torch.equal(sample_moments(moments, noise), theirs)


@pytest.mark.parametrize("name", ONE_EACH)
def test_latents_in_bfloat16_stay_near(name, photos):
    """Within 3 % of the norm; SDXL's, whose autoencoder stays in float32, as near as one rounding of what is kept."""
    exact, rounded = frozen(name, latents="mean"), frozen(name, torch.bfloat16, "mean")
    record = rounded.encode_pictures(photos)
    assert record["latents"].dtype == torch.bfloat16
    expected = exact.family.latents(exact.encode_pictures(photos)["latents"], exact.scaling)
    ours = rounded.family.latents(record["latents"], rounded.scaling)
    assert (ours - expected).norm() <= (0.002 if name == "sdxl" else 0.03) * expected.norm()


@pytest.mark.parametrize("name", ONE_EACH)
def test_a_picture_s_record_is_what_the_table_says(name, photos):
    record = frozen(name, torch.bfloat16).encode_pictures(photos)
    assert sum(tensor.nbytes for tensor in record.values()) == 2 * get_spec(name).encodings.picture_bytes(64, 96)


def test_the_pipelines_that_encode_pictures_agree(photos):
    """Where diffusers has an image-to-image pipeline, its own way from pixels to latents."""
    img = photos.float() / 127.5 - 1
    generator = torch.Generator().manual_seed(3)
    for name, kind in (("flux.1-dev", "FluxImg2ImgPipeline"), ("qwen-image", "QwenImageImg2ImgPipeline")):
        whole = getattr(diffusers, kind)(**pipeline(name).components)
        noise = torch.randn((2, 16, 8, 12), generator=torch.Generator().manual_seed(3))
        with torch.no_grad():
            picture = img.unsqueeze(2) if name == "qwen-image" else img
            theirs = whole._encode_vae_image(picture, generator.manual_seed(3))
        models = frozen(name)
        drawn = sample_moments(models.encode_pictures(photos)["moments"], noise)
        assert torch.equal(models.family.latents(drawn, models.scaling), theirs)
    with torch.no_grad():
        theirs = pipeline("flux.2-dev")._encode_vae_image(img, generator)
    models = frozen("flux.2-dev", latents="mean")
    assert torch.equal(models.family.latents(models.encode_pictures(photos)["latents"], models.scaling), theirs)


def test_sdxl_with_statistics_of_its_latents():
    """`latents_mean` and `latents_std`, which some of its fine-tunes have (train_dreambooth_lora_sdxl.py)."""
    family = frozen("sdxl").family
    mean, std = [0.1, -0.2, 0.3, 0.0], [1.5, 0.5, 2.0, 1.0]
    config = {"scaling_factor": 0.5, "shift_factor": None, "latents_mean": mean, "latents_std": std}
    vae = type("Vae", (), {"config": type("Config", (), config)})
    z = torch.randn((2, 4, 3, 3), generator=torch.Generator().manual_seed(0))
    m, s = (torch.tensor(values).view(1, 4, 1, 1) for values in (mean, std))
    assert torch.equal(family.latents(z, family.scaling(vae)), (z - m) * 0.5 / s)


# -- Conditioning, and the table ---------------------------------------------------------------------------------------


def test_only_sdxl_is_told_sizes():
    geometry = Geometry(original_size=(300, 400), box=(0, 0, 300, 300), crop_top_left=(5, 6), target_size=(64, 64))
    for name in NAMES:
        told = frozen(name).family.conditioning(geometry)
        if name != "sdxl":
            assert told == {}
            continue
        theirs = pipeline(name)._get_add_time_ids((300, 400), (5, 6), (64, 64), torch.int64, 24)
        assert torch.equal(torch.cat(list(told.values())), theirs[0])
        assert list(told) == ["original_size", "crop_top_left", "target_size"]


def test_every_row_has_a_family_that_diffusers_can_load():
    for family in list_families():
        assert isinstance(family, ModelFamily)
        for pipe in family.pipelines:
            assert hasattr(diffusers, pipe), (family.name, pipe)
        for spec in family.models:
            assert get_family(spec.family) is family
            assert [field.key for field in family.texts] == [output.key for output in spec.encodings.texts]
