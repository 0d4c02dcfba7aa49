"""The ids are those that diffusers' own pipelines hand to their text encoders.

The pipelines are diffusers' classes with the real tokenizers and tiny text encoders of random weights; what
`encode_prompt` feeds these encoders is written down and compared. This covers every argument with which a pipeline
calls its tokenizers, whatever the version of diffusers that is installed.
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import pytest
import torch
from encoding_helpers import frozen
from tiny_pipelines import tiny_pipeline

from calotype.models import build_model_transform, list_families

sys.path.insert(0, str(Path(__file__).parent))

from make_golden import CAPTIONS

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    diffusers = pytest.importorskip("diffusers", exc_type=ImportError)
    transformers = pytest.importorskip("transformers", exc_type=ImportError)

pytestmark = pytest.mark.filterwarnings("ignore")

IMAGE = torch.zeros((3, 16, 16), dtype=torch.uint8)


def clip(projection: bool = True):
    config = transformers.CLIPTextConfig(
        vocab_size=49408,
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        projection_dim=8,
        pad_token_id=1,
        bos_token_id=0,
        eos_token_id=2,
    )
    return (transformers.CLIPTextModelWithProjection if projection else transformers.CLIPTextModel)(config).eval()


def t5():
    config = transformers.T5Config(vocab_size=32128, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2)
    return transformers.T5EncoderModel(config).eval()


def recorded(encoder, into: list[torch.Tensor]):
    def note(module, args, kwargs):
        into.append((args[0] if args else kwargs["input_ids"]).clone())

    encoder.register_forward_pre_hook(note, with_kwargs=True)
    return encoder


def flux_1(folder, ids):
    return diffusers.FluxPipeline(
        scheduler=None,
        vae=None,
        transformer=None,
        text_encoder=recorded(clip(projection=False), ids["clip_text_tokens"]),
        tokenizer=transformers.CLIPTokenizer.from_pretrained(folder / "tokenizer"),
        text_encoder_2=recorded(t5(), ids["t5_text_tokens"]),
        tokenizer_2=transformers.T5TokenizerFast.from_pretrained(folder / "tokenizer_2"),
    )


def sdxl(folder, ids):
    return diffusers.StableDiffusionXLPipeline(
        scheduler=None,
        vae=None,
        unet=None,
        text_encoder=recorded(clip(projection=False), ids["clip_l_text_tokens"]),
        tokenizer=transformers.CLIPTokenizer.from_pretrained(folder / "tokenizer"),
        text_encoder_2=recorded(clip(), ids["clip_g_text_tokens"]),
        tokenizer_2=transformers.CLIPTokenizer.from_pretrained(folder / "tokenizer_2"),
        add_watermarker=False,
    )


def sd3(folder, ids):
    return diffusers.StableDiffusion3Pipeline(
        scheduler=None,
        vae=None,
        transformer=None,
        text_encoder=recorded(clip(), ids["clip_l_text_tokens"]),
        tokenizer=transformers.CLIPTokenizer.from_pretrained(folder / "tokenizer"),
        text_encoder_2=recorded(clip(), ids["clip_g_text_tokens"]),
        tokenizer_2=transformers.CLIPTokenizer.from_pretrained(folder / "tokenizer_2"),
        text_encoder_3=recorded(t5(), ids["t5_text_tokens"]),
        tokenizer_3=transformers.T5TokenizerFast.from_pretrained(folder / "tokenizer_3"),
    )


def sd_1(folder, ids):
    return diffusers.StableDiffusionPipeline(
        scheduler=diffusers.DDIMScheduler(steps_offset=1, clip_sample=False),
        vae=None,
        unet=None,
        text_encoder=recorded(clip(projection=False), ids["clip_text_tokens"]),
        tokenizer=transformers.CLIPTokenizer.from_pretrained(folder / "tokenizer"),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


CASES = [
    ("flux.1-dev", "flux.1", flux_1, {"prompt_2": None, "max_sequence_length": 512}),
    ("flux.1-schnell", "flux.1", flux_1, {"prompt_2": None, "max_sequence_length": 256}),
    ("sdxl", "sdxl", sdxl, {"do_classifier_free_guidance": False}),
    ("sd3-medium", "sd3", sd3, {"prompt_2": None, "prompt_3": None, "do_classifier_free_guidance": False}),
    ("sd-1.5", "sd-1", sd_1, {"num_images_per_prompt": 1, "do_classifier_free_guidance": False}),
]


@pytest.mark.parametrize(("model", "family", "pipeline", "options"), CASES, ids=[case[0] for case in CASES])
def test_encode_prompt_sees_the_same_ids(pipelines, model, family, pipeline, options):
    folder = pipelines(family)
    transform = build_model_transform(model, tokenizers=folder)
    ids: dict[str, list[torch.Tensor]] = {field.spec.key: [] for field in transform.fields}
    pipe = pipeline(folder, ids)
    for title, text in CAPTIONS.items():
        with torch.no_grad():
            pipe.encode_prompt(prompt=text, device=torch.device("cpu"), **options)
        ours = transform.prepare({"image": IMAGE, "text": text})
        for key, seen in ids.items():
            assert len(seen) == 1, (title, key)
            assert torch.equal(seen.pop()[0], ours[key]), (title, key)


def test_sdxl_sizes_are_the_pipeline_s_time_ids(pipelines):
    """`_get_add_time_ids` puts the three pairs side by side as `prepare` orders and fills them."""
    from calotype.types import Geometry

    transform = build_model_transform("sdxl", tokenizers=pipelines("sdxl"))
    geometry = Geometry(original_size=(30, 40), box=(0, 0, 30, 40), crop_top_left=(5, 6), target_size=(16, 16))
    found = transform.prepare({"image": IMAGE, "text": "", "geometry": geometry})
    unet = type("Unet", (), {"config": type("Config", (), {"addition_time_embed_dim": 1})})()
    unet.add_embedding = type("E", (), {"linear_1": torch.nn.Linear(6, 1)})()
    pipe = type("Pipe", (), {"unet": unet})()
    theirs = diffusers.StableDiffusionXLPipeline._get_add_time_ids(
        pipe, (30, 40), (5, 6), (16, 16), dtype=torch.int64, text_encoder_projection_dim=0
    )
    ours = torch.cat([found[key] for key in ("original_size", "crop_top_left", "target_size")])
    assert torch.equal(theirs[0], ours)


TOKENIZED = [family.models[0].name for family in list_families() if family.models[0].tokenizers]


@pytest.mark.parametrize("model", TOKENIZED)
def test_the_frozen_encoders_see_the_ids_of_the_dataset(model):
    """The encoders of a saved pipeline, and the transform from the tokenizers in its folder."""
    models, ids = frozen(model), []
    transform = build_model_transform(model, tokenizers=tiny_pipeline(model))
    captions = ["a photo of a cat, bright", "", "large " * 90]

    def note(module, args):
        if isinstance(module, transformers.PreTrainedModel) and args and args[0].dtype == torch.int64:
            ids.append(args[0])  # (B, L)

    hook = torch.nn.modules.module.register_module_forward_pre_hook(note)
    try:
        models.encode_texts(captions)
    finally:
        hook.remove()
        models.release_texts()
    ours = [transform.prepare({"image": IMAGE, "text": caption}) for caption in captions]
    expected = [torch.stack([one[field.spec.key] for one in ours]) for field in transform.fields]
    for batch in expected:
        assert any(torch.equal(batch, seen) for seen in ids)
    assert len(ids) >= len(expected)
