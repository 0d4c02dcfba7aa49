"""Whole pipelines of diffusers' real classes, built tiny with a fixed seed and saved as a user's folder would be.

`tiny_pipeline("flux.1-dev")` is a folder that `from_pretrained` loads: random weights, the real numbers of latent
channels, real tokenizers. Two of these are in no package: FLUX.2's and Sana's are of the right classes
(`PixtralProcessor`, `GemmaTokenizer`) but trained here on a few sentences. Built once for a machine, under `.cache/` of
the repository.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import real_tokenizers
import torch

CACHE = Path(__file__).parents[1] / ".cache" / "pipelines"
VERSION = 1
"""Raise it when a pipeline here changes."""

NAMES = (
    "flux.1-dev",
    "flux.1-schnell",
    "sd-1.5",
    "sdxl",
    "sd3-medium",
    "qwen-image",
    "z-image",
    "flux.2-dev",
    "chroma",
    "pixart-sigma",
    "sana",
)

WIDTH = 16
"""Of every text encoder but where two must differ."""

SENTENCES = (
    "a photo of a tabby cat on a wooden table",
    "an astronaut in an orange suit smiles before a flag and a model of the shuttle",
    "a cup of coffee, a spoon, steam rising; warm light from the left",
    "describe the image: colour, shape, size, texture, quantity, text and the relation of the objects",
    "a rocket stands on its launch pad at dusk",
)


def tiny_pipeline(name: str) -> Path:
    """The folder of a model's tiny pipeline, by the model's name in the table (`flux.2` is `flux.2-dev`).

    Nobody may change what is in it: copy it first.
    """
    name = {"flux.2": "flux.2-dev"}.get(name, name)
    folder = CACHE / f"v{VERSION}" / name
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as scratch, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pipeline = Path(scratch) / name
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                _BUILDERS[name]().save_pretrained(pipeline)
            _sign(pipeline, name)
            try:  # one rename: two processes that build at once never see half a folder
                pipeline.rename(folder)
            except OSError:
                if not folder.is_dir():
                    raise
    return folder


def copy_of(name: str, target: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(tiny_pipeline(name), target))


def _sign(folder: Path, name: str) -> None:
    """The hub's name that a saved copy of the real pipeline carries."""
    from calotype.models import get_spec

    file = folder / "model_index.json"
    index = json.loads(file.read_text())
    index["_name_or_path"] = get_spec(name).hub[0]
    file.write_text(json.dumps(index, indent=2))


# -- Parts ----------------------------------------------------------------------------------------------------


def _clip(name: str, width: int = WIDTH, *, projection: bool = False) -> tuple[Any, Any]:
    import transformers

    config = transformers.CLIPTextConfig(
        vocab_size=49408,
        hidden_size=width,
        intermediate_size=32,
        num_hidden_layers=3,
        num_attention_heads=2,
        projection_dim=width,
        pad_token_id=1,
        bos_token_id=0,
        eos_token_id=2,
    )
    kind = transformers.CLIPTextModelWithProjection if projection else transformers.CLIPTextModel
    return transformers.CLIPTokenizer.from_pretrained(real_tokenizers.tokenizer(name)), kind(config)


def _t5(name: str, width: int = WIDTH) -> tuple[Any, Any]:
    import transformers

    config = transformers.T5Config(
        vocab_size=32128, d_model=width, d_kv=8, d_ff=32, num_layers=2, num_heads=2, feed_forward_proj="gated-gelu"
    )
    tokenizer = transformers.T5TokenizerFast.from_pretrained(real_tokenizers.tokenizer(name))
    return tokenizer, transformers.T5EncoderModel(config)


def _kl(channels: int, scaling: float, shift: float | None = None, **options: Any) -> Any:
    import diffusers

    return diffusers.AutoencoderKL(
        down_block_types=["DownEncoderBlock2D"] * 4,
        up_block_types=["UpDecoderBlock2D"] * 4,
        block_out_channels=[8, 8, 16, 16],
        layers_per_block=1,
        latent_channels=channels,
        norm_num_groups=4,
        sample_size=64,
        scaling_factor=scaling,
        shift_factor=shift,
        **options,
    )


def _euler(**options: Any) -> Any:
    import diffusers

    return diffusers.FlowMatchEulerDiscreteScheduler(**options)


def _unet(cross: int, **options: Any) -> Any:
    import diffusers

    return diffusers.UNet2DConditionModel(
        sample_size=64,
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=cross,
        attention_head_dim=4,
        norm_num_groups=4,
        **options,
    )


# -- Pipelines ----------------------------------------------------------------------------------------------------


def _flux(*, guidance: bool) -> Any:
    import diffusers

    tokenizer, text_encoder = _clip("clip_l")
    tokenizer_2, text_encoder_2 = _t5("t5")
    return diffusers.FluxPipeline(
        scheduler=_euler(use_dynamic_shifting=guidance),
        vae=_kl(16, 0.3611, 0.1159, use_quant_conv=False, use_post_quant_conv=False),
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        text_encoder_2=text_encoder_2,
        tokenizer_2=tokenizer_2,
        transformer=diffusers.FluxTransformer2DModel(
            patch_size=1,
            in_channels=64,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=WIDTH,
            pooled_projection_dim=WIDTH,
            guidance_embeds=guidance,
            axes_dims_rope=(4, 4, 8),
        ),
    )


def _sd15() -> Any:
    import diffusers

    tokenizer, text_encoder = _clip("sd15_clip_l")
    return diffusers.StableDiffusionPipeline(
        vae=_kl(4, 0.18215),
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=_unet(WIDTH),
        scheduler=diffusers.DDPMScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1, clip_sample=False
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def _sdxl() -> Any:
    import diffusers

    tokenizer, text_encoder = _clip("sdxl_clip_l")
    tokenizer_2, text_encoder_2 = _clip("sdxl_clip_g", 24, projection=True)
    return diffusers.StableDiffusionXLPipeline(
        vae=_kl(4, 0.13025, force_upcast=True),
        text_encoder=text_encoder,
        text_encoder_2=text_encoder_2,
        tokenizer=tokenizer,
        tokenizer_2=tokenizer_2,
        unet=_unet(
            WIDTH + 24,
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=6 * 8 + 24,
            use_linear_projection=True,
        ),
        scheduler=diffusers.EulerDiscreteScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1
        ),
        add_watermarker=False,
    )


def _sd3() -> Any:
    import diffusers

    tokenizer, text_encoder = _clip("sd3_clip_l", projection=True)
    tokenizer_2, text_encoder_2 = _clip("sd3_clip_g", 24, projection=True)
    tokenizer_3, text_encoder_3 = _t5("sd3_t5", 48)
    return diffusers.StableDiffusion3Pipeline(
        transformer=diffusers.SD3Transformer2DModel(
            sample_size=64,
            patch_size=2,
            in_channels=16,
            num_layers=1,
            attention_head_dim=8,
            num_attention_heads=2,
            joint_attention_dim=48,
            caption_projection_dim=16,
            pooled_projection_dim=WIDTH + 24,
            out_channels=16,
        ),
        scheduler=_euler(shift=3.0),
        vae=_kl(16, 1.5305, 0.0609, use_quant_conv=False, use_post_quant_conv=False),
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        text_encoder_2=text_encoder_2,
        tokenizer_2=tokenizer_2,
        text_encoder_3=text_encoder_3,
        tokenizer_3=tokenizer_3,
    )


def _qwen_image() -> Any:
    import diffusers
    import transformers

    config = transformers.Qwen2_5_VLConfig(
        text_config={
            "vocab_size": 152064,
            "hidden_size": WIDTH,
            "intermediate_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "rope_parameters": {"mrope_section": [1, 1, 2], "rope_type": "default", "rope_theta": 1e6},
        },
        vision_config={
            "depth": 1,
            "hidden_size": WIDTH,
            "intermediate_size": 16,
            "num_heads": 2,
            "out_hidden_size": WIDTH,
        },
    )
    return diffusers.QwenImagePipeline(
        scheduler=_euler(use_dynamic_shifting=True),
        vae=diffusers.AutoencoderKLQwenImage(base_dim=8, z_dim=16, num_res_blocks=1),
        text_encoder=transformers.Qwen2_5_VLForConditionalGeneration(config),
        tokenizer=transformers.Qwen2Tokenizer.from_pretrained(real_tokenizers.tokenizer("qwen_image")),
        transformer=diffusers.QwenImageTransformer2DModel(
            patch_size=2,
            in_channels=64,
            out_channels=16,
            num_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=WIDTH,
            axes_dims_rope=(8, 4, 4),
        ),
    )


def _z_image() -> Any:
    import diffusers
    import transformers

    config = transformers.Qwen3Config(
        vocab_size=151936,
        hidden_size=WIDTH,
        intermediate_size=32,
        num_hidden_layers=3,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=8,
    )
    transformer = diffusers.ZImageTransformer2DModel(
        in_channels=16,
        dim=32,
        n_layers=1,
        n_refiner_layers=1,
        n_heads=2,
        n_kv_heads=2,
        cap_feat_dim=WIDTH,
        axes_dims=[8, 4, 4],
        axes_lens=[1024, 64, 64],
    )
    with torch.no_grad():  # they are made with torch.empty
        transformer.x_pad_token.normal_(std=0.02)
        transformer.cap_pad_token.normal_(std=0.02)
    return diffusers.ZImagePipeline(
        scheduler=_euler(shift=3.0),
        vae=_kl(16, 0.3611, 0.1159, use_quant_conv=False, use_post_quant_conv=False),
        text_encoder=transformers.Qwen3Model(config),
        tokenizer=transformers.Qwen2Tokenizer.from_pretrained(real_tokenizers.tokenizer("z_image")),
        transformer=transformer,
    )


def _flux2() -> Any:
    import diffusers
    import transformers

    processor = transformers.PixtralProcessor(
        image_processor=transformers.PixtralImageProcessor(),
        tokenizer=_trained(
            transformers.PreTrainedTokenizerFast,
            ["<unk>", "<s>", "</s>", "<pad>", "[INST]", "[/INST]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[IMG]"],
            unk_token="<unk>",
            bos_token="<s>",
            eos_token="</s>",
            pad_token="<pad>",
            padding_side="left",
        ),
        patch_size=14,
        spatial_merge_size=2,
        chat_template=(
            "{{ bos_token }}{% for message in messages %}"
            "{% if message['role'] == 'system' %}[SYSTEM_PROMPT]{{ message['content'][0]['text'] }}[/SYSTEM_PROMPT]"
            "{% elif message['role'] == 'user' %}[INST]{{ message['content'][0]['text'] }}[/INST]{% endif %}"
            "{% endfor %}"
        ),
        image_token="[IMG]",
        image_break_token="[IMG]",
        image_end_token="[IMG]",
    )
    config = transformers.Mistral3Config(
        text_config={
            "model_type": "mistral",
            "vocab_size": len(processor.tokenizer),
            "hidden_size": WIDTH,
            "intermediate_size": 16,
            "num_hidden_layers": 31,  # the pipeline takes layers 10, 20 and 30
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "head_dim": 8,
            "sliding_window": None,
        },
        vision_config={
            "model_type": "pixtral",
            "hidden_size": WIDTH,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "intermediate_size": 16,
            "image_size": 28,
            "patch_size": 14,
        },
        image_token_index=8,
    )
    vae = diffusers.AutoencoderKLFlux2(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(8, 8, 16, 16),
        layers_per_block=1,
        latent_channels=32,
        norm_num_groups=4,
        sample_size=64,
    )
    vae.bn.running_mean.normal_()
    vae.bn.running_var.uniform_(0.5, 2.0)
    return diffusers.Flux2Pipeline(
        scheduler=_euler(use_dynamic_shifting=True),
        vae=vae,
        text_encoder=transformers.Mistral3ForConditionalGeneration(config),
        tokenizer=processor,
        transformer=diffusers.Flux2Transformer2DModel(
            patch_size=1,
            in_channels=128,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=3 * WIDTH,
            axes_dims_rope=(4, 4, 4, 4),
        ),
    )


def _chroma() -> Any:
    import diffusers

    tokenizer, text_encoder = _t5("t5")
    return diffusers.ChromaPipeline(
        scheduler=_euler(),
        vae=_kl(16, 0.3611, 0.1159, use_quant_conv=False, use_post_quant_conv=False),
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        transformer=diffusers.ChromaTransformer2DModel(
            patch_size=1,
            in_channels=64,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=WIDTH,
            axes_dims_rope=(4, 4, 8),
            approximator_hidden_dim=32,
            approximator_layers=1,
            approximator_num_channels=16,
        ),
    )


def _pixart_sigma() -> Any:
    import diffusers

    tokenizer, text_encoder = _t5("t5")
    return diffusers.PixArtSigmaPipeline(
        tokenizer=tokenizer,
        text_encoder=text_encoder,
        vae=_kl(4, 0.13025),
        transformer=diffusers.PixArtTransformer2DModel(
            sample_size=64,
            num_layers=1,
            patch_size=2,
            attention_head_dim=8,
            num_attention_heads=2,
            caption_channels=WIDTH,
            in_channels=4,
            cross_attention_dim=16,
            out_channels=8,
            attention_bias=True,
            activation_fn="gelu-approximate",
            num_embeds_ada_norm=1000,
            norm_type="ada_norm_single",
            norm_elementwise_affine=False,
            norm_eps=1e-6,
            use_additional_conditions=False,
        ),
        scheduler=diffusers.DPMSolverMultistepScheduler(),
    )


def _sana() -> Any:
    import diffusers
    import transformers

    tokenizer = _trained(
        transformers.GemmaTokenizer,
        ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"],
        unk_token="<unk>",
        bos_token="<bos>",
        eos_token="<eos>",
        pad_token="<pad>",
    )
    config = transformers.Gemma2Config(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
    )
    blocks = ("ResBlock", "ResBlock", "ResBlock", "ResBlock", "ResBlock", "EfficientViTBlock")
    widths = (8, 8, 16, 16, 32, 32)
    scales: tuple[tuple[int, ...], ...] = ((), (), (), (), (), (5,))
    return diffusers.SanaPipeline(
        tokenizer=tokenizer,
        text_encoder=transformers.Gemma2Model(config),
        vae=diffusers.AutoencoderDC(
            latent_channels=32,
            attention_head_dim=8,
            encoder_block_types=blocks,
            decoder_block_types=blocks,
            encoder_block_out_channels=widths,
            decoder_block_out_channels=widths,
            encoder_layers_per_block=(1,) * 6,
            decoder_layers_per_block=(1,) * 6,
            encoder_qkv_multiscales=scales,
            decoder_qkv_multiscales=scales,
            downsample_block_type="Conv",
            upsample_block_type="interpolate",
            scaling_factor=0.41407,
        ),
        transformer=diffusers.SanaTransformer2DModel(
            patch_size=1,
            in_channels=32,
            out_channels=32,
            num_layers=1,
            num_attention_heads=2,
            attention_head_dim=8,
            num_cross_attention_heads=2,
            cross_attention_head_dim=8,
            cross_attention_dim=16,
            caption_channels=WIDTH,
            sample_size=32,
        ),
        scheduler=diffusers.DPMSolverMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True),
    )


def _trained(kind: Any, special: list[str], **options: Any) -> Any:
    """A byte-level BPE of a few hundred tokens, trained on the sentences above, in the tokenizer class asked for."""
    import tokenizers

    model = tokenizers.Tokenizer(tokenizers.models.BPE(unk_token=options["unk_token"], byte_fallback=False))
    model.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    model.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=512,
        special_tokens=special,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    model.train_from_iterator(SENTENCES, trainer)
    if kind.__name__ == "PreTrainedTokenizerFast":
        return kind(tokenizer_object=model, **options)
    state = json.loads(model.to_str())["model"]
    return kind(vocab=state["vocab"], merges=[tuple(pair) for pair in state["merges"]], **options)


_BUILDERS: dict[str, Callable[[], Any]] = {
    "flux.1-dev": lambda: _flux(guidance=True),
    "flux.1-schnell": lambda: _flux(guidance=False),
    "sd-1.5": _sd15,
    "sdxl": _sdxl,
    "sd3-medium": _sd3,
    "qwen-image": _qwen_image,
    "z-image": _z_image,
    "flux.2-dev": _flux2,
    "chroma": _chroma,
    "pixart-sigma": _pixart_sigma,
    "sana": _sana,
}


if __name__ == "__main__":  # what `make demo` hands to the command
    print(tiny_pipeline("flux.1-dev"))
