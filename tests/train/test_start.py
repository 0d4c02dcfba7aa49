"""Training from a LoRA file: ours in both layouts and other programs', every family; what is not used is named."""

import json

import diffusers
import pytest
import torch
from encoding_helpers import frozen
from safetensors.torch import load_file, save_file
from tiny_pipelines import tiny_pipeline
from train_helpers import make_folder, run

from calotype.config.train import TrainConfig
from calotype.errors import ConfigError
from calotype.train.lora import LORA_FILE, make_trainable, save_result, trained
from calotype.train.networks import load_network, network_of
from calotype.train.start import read_start, take_rank

FAMILIES = ["flux.1-dev", "sd3-medium", "sdxl", "sd-1.5"]


def written(model, folder, **options):
    """A network with random adapters of rank 4, and their file."""
    models = frozen(model)
    weights = load_network(models, torch.float32)
    options = TrainConfig(lora_rank=4, gradient_checkpointing=False, **options)
    make_trainable(weights, models.spec, options, seed=0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in trained(weights).values():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return weights, save_result(weights, models, options, folder)


def started(model, file, **options):
    """A network that starts from a file, and what is said of it."""
    models = frozen(model)
    weights = load_network(models, torch.float32)
    options = TrainConfig(gradient_checkpointing=False, lora_weights=str(file), **options)
    options = take_rank(options)
    start = read_start(options, weights, models.spec)
    make_trainable(weights, models.spec, options, seed=5, start=start)
    return weights, start.note


def deltas(network):
    found = {}
    for name, layer in network.named_modules():
        if getattr(layer, "lora_A", None):
            (adapter,) = layer.lora_A
            found[name] = layer.get_delta_weight(adapter).detach()
    return found


def same(one, other):
    was, now = deltas(one), deltas(other)
    return was.keys() == now.keys() and all(torch.allclose(was[n], now[n], rtol=1e-4, atol=1e-5) for n in was)


def answer(model, weights):
    """What the network predicts for one fixed batch."""
    spec, generator = frozen(model).spec, torch.Generator().manual_seed(2)
    config = weights.config

    def random(*shape):
        return torch.randn(shape, generator=generator)

    if spec.family in ("sdxl", "sd-1"):
        texts, channels = {"prompt_embeds": random(1, 7, config.cross_attention_dim)}, config.in_channels
        if spec.family == "sdxl":
            texts["pooled_prompt_embeds"] = random(
                1, config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
            )
            texts |= {k: torch.full((1, 2), 64) for k in ("original_size", "crop_top_left", "target_size")}
        times = torch.tensor([300])
    else:
        flux = spec.family == "flux.1"
        channels = config.in_channels // 4 if flux else config.in_channels
        texts = {
            "prompt_embeds": random(1, 7, config.joint_attention_dim),
            "pooled_prompt_embeds": random(1, config.pooled_projection_dim),
        }
        times = torch.tensor([0.4])
    with torch.no_grad():
        return network_of(spec).predict(weights, random(1, channels, 8, 8), times, texts, 1.0)


@pytest.mark.parametrize("model", FAMILIES)
@pytest.mark.parametrize("format", ["kohya", "diffusers"])
def test_our_own_file_starts_a_network_that_predicts_as_the_trained_one(model, format, tmp_path):
    """With alpha ≠ rank on both sides; and as a pipeline does that loads it."""
    weights, file = written(model, tmp_path, lora_alpha=3, lora_format=format)
    again, note = started(model, tmp_path, lora_alpha=7)
    assert same(weights, again) and note == f"note: starts from {file}: {len(deltas(weights))} layers of rank 4"
    trained_answer = answer(model, weights)
    assert torch.allclose(trained_answer, answer(model, again), rtol=1e-2, atol=1e-3)
    bare = load_network(frozen(model), torch.float32)
    assert not torch.allclose(trained_answer, answer(model, bare), rtol=1e-2, atol=1e-2)
    if format == "kohya" and model in ("flux.1-dev", "sd3-medium"):  # diffusers reads FLUX.1's real widths alone
        return
    pipe = diffusers.DiffusionPipeline.from_pretrained(tiny_pipeline(model), safety_checker=None)
    pipe.load_lora_weights(tmp_path)
    loaded = getattr(pipe, network_of(frozen(model).spec).component)
    assert torch.allclose(trained_answer, answer(model, loaded), rtol=1e-2, atol=1e-3)


def test_fused_layers_of_ours_come_back_where_some_of_them_have_no_adapter(tmp_path):
    targets = ["attn.to_q", "attn.to_v", "ff.net.2"]
    weights, _ = written("flux.1-dev", tmp_path, lora_format="kohya", lora_targets=targets)
    assert same(weights, started("flux.1-dev", tmp_path)[0])


def test_kohya_s_own_file_has_alphas_one_down_for_q_k_and_v_and_text_encoders(tmp_path):
    generator = torch.Generator().manual_seed(3)
    network = load_network(frozen("flux.1-dev"), torch.float32)
    rows, columns = network.transformer_blocks[0].attn.to_q.weight.shape
    down, up = torch.randn(4, columns, generator=generator), torch.randn(3 * rows, 4, generator=generator)
    name = "lora_unet_double_blocks_0_img_attn_qkv"
    tensors = {f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up, f"{name}.alpha": torch.tensor(1.0)}
    tensors |= {
        f"lora_te1_text_model_encoder_layers_0_mlp_fc1.{x}": torch.ones(8, 8) for x in ("lora_down.weight", "y")
    }
    save_file(tensors | {"lora_unet_double_blocks_99_img_mlp_0.alpha": torch.ones(1)}, tmp_path / "k.safetensors")
    weights, note = started("flux.1-dev", tmp_path / "k.safetensors")
    found = deltas(weights)
    whole = torch.cat([found[f"transformer_blocks.0.attn.to_{x}"] for x in "qkv"])
    assert torch.allclose(whole, up @ down / 4, rtol=1e-4, atol=1e-5) and len(found) == 3
    assert "3 tensors are not used: " in note and "lora_te1_text_model" in note


def renamed(file, model, rename, folder, metadata=None):
    folder.mkdir()
    tensors = {rename(name): tensor for name, tensor in load_file(file).items()}
    made = folder / "adapter_model.safetensors"
    save_file(tensors, made, metadata=metadata or {})
    return made


@pytest.mark.parametrize("model", ["flux.1-dev", "sd-1.5"])
def test_peft_s_file_is_scaled_by_the_config_beside_it(model, tmp_path):
    weights, file = written(model, tmp_path, lora_format="diffusers")

    def rename(name):
        name = name.replace("lora.down", "lora_A").replace("lora.up", "lora_B")
        return "base_model.model." + name.partition(".")[2]

    made = renamed(file, model, rename, tmp_path / "peft")
    (tmp_path / "peft" / "adapter_config.json").write_text(json.dumps({"lora_alpha": 8, "r": 4}))
    found, was = deltas(started(model, tmp_path / "peft")[0]), deltas(weights)
    assert all(torch.allclose(found[name], 2 * was[name], rtol=1e-4, atol=1e-4) for name in was)
    (tmp_path / "peft" / "adapter_config.json").write_text(json.dumps({"lora_alpha": 8, "r": 4, "use_rslora": True}))
    with pytest.raises(ConfigError, match=r"adapter_model\.safetensors: its description has use_rslora"):
        started(model, made)


def test_other_programs_names_of_diffusers_and_original_paths_are_read(tmp_path):
    """sd-scripts' diffusers paths of SDXL, OneTrainer's and ComfyUI's prefixes, diffusers' of 2023."""
    weights, file = written("sdxl", tmp_path, lora_format="diffusers")

    def underscored(name):
        layer, _, end = name.removeprefix("unet.").partition(".lora.")
        return f"lora_unet_{layer.replace('.', '_')}.lora_{end}"

    def processors(name):
        layer, _, end = name.partition(".lora.")
        head, _, last = layer.removesuffix(".0").rpartition(".") if "to_out" in layer else layer.rpartition(".")
        return f"{head}.processor.{last}_lora.{end}"

    def dotted(name):
        return "diffusion_model." + name.removeprefix("unet.").replace("lora.down", "lora_A").replace(
            "lora.up", "lora_B"
        )

    for number, rename in enumerate((underscored, processors, dotted)):
        assert same(weights, started("sdxl", renamed(file, "sdxl", rename, tmp_path / str(number)))[0])


def test_training_begins_where_the_file_s_run_ended(tmp_path):
    """Its first validation, on the same images and noise, is the last one of the run that wrote the file."""
    photos = make_folder(tmp_path / "photos")
    options = {"dataset": {"validation": 0.4}, "validation_every": 3}
    first = run(
        photos, tmp_path / "first", max_steps=3, learning_rate=0.05, lora_alpha=2, lora_format="kohya", **options
    )
    said = []
    options |= {"lora_rank": None, "lora_weights": str(tmp_path / "first"), "tell": said.append}
    second = run(photos, tmp_path / "second", max_steps=1, lora_alpha=7, **options)
    assert second.validation[0][1] == pytest.approx(first.validation[-1][1], rel=1e-5)
    assert abs(first.validation[0][1] - first.validation[-1][1]) > 1e-3 * first.validation[0][1]
    assert sum(line.startswith("note: starts from ") for line in said) == 1
    again = run(photos, tmp_path / "second", max_steps=2, lora_alpha=7, resume=True, **options)  # and it resumes
    assert again.steps == 2 and sum(line.startswith("note: starts from ") for line in said) == 1


def twice_the_rank(tensors):
    down, up = (f"transformer.transformer_blocks.0.attn.to_q.lora_{x}.weight" for x in "AB")
    return tensors | {down: tensors[down].repeat(2, 1), up: tensors[up].repeat(1, 2)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: {"a.b.lora_A.weight": torch.ones(4, 4)}, "has no layer of flux.1-dev's network; .* a.b.lora_A"),
        (lambda t: {k: v[:, :-1] if "to_q.lora_A" in k else v for k, v in t.items()}, r"is it of another model\?"),
        (lambda t: {k: v for k, v in t.items() if "to_q.lora_B" not in k}, "has one of lora_down and lora_up"),
        (lambda t: t | {"transformer.x.lokr_w1": torch.ones(1)}, "has 'lokr_' in its names; plain LoRA was expected"),
        (lambda t: {"w": torch.ones(1)}, "has no lora_down or lora_A; a LoRA was expected"),
        (
            twice_the_rank,
            "has layers of rank 4 and 8; one rank was expected",
        ),
    ],
)
def test_a_file_that_is_none_of_this_model_is_refused_with_the_reason(change, message, tmp_path):
    _, file = written("flux.1-dev", tmp_path)
    made = tmp_path / "changed.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in change(load_file(file)).items()}, made)
    with pytest.raises(ConfigError, match=f"changed.safetensors: .*{message}"):
        started("flux.1-dev", made)


def test_what_contradicts_the_file_is_refused_before_anything_is_loaded(tmp_path):
    _, file = written("sd-1.5", tmp_path)
    with pytest.raises(ConfigError, match=rf"lora_rank: found 16, and {file} has rank 4; leave lora_rank out"):
        started("sd-1.5", tmp_path, lora_rank=16)
    with pytest.raises(ConfigError, match=r"lora_targets: leaves out \d+ layers that lora_weights has, the first: "):
        started("sd-1.5", tmp_path, lora_targets=["to_q"])
    with pytest.raises(ConfigError, match=rf"lora_weights: found .*nowhere.*a folder with {LORA_FILE}"):
        started("sd-1.5", tmp_path / "nowhere")
    (tmp_path / "x.safetensors").write_bytes(b"not one")
    with pytest.raises(ConfigError, match=r"x\.safetensors: is no safetensors file"):
        started("sd-1.5", tmp_path / "x.safetensors")
    with pytest.raises(ConfigError, match="lora_weights: has no effect with method: full"):
        TrainConfig.of({"method": "full", "lora_weights": str(file)})
