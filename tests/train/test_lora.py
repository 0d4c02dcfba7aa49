"""The LoRA file: the same strength and the same layers for diffusers, ComfyUI, A1111/Forge and sd-scripts."""

import os
import re
from pathlib import Path

import diffusers
import pytest
import torch
from encoding_helpers import frozen
from safetensors import safe_open
from safetensors.torch import load_file
from tiny_pipelines import tiny_pipeline

from calotype.config.train import TrainConfig
from calotype.errors import ConfigError
from calotype.train.lora import LORA_FILE, left_out, make_trainable, save_result, trained
from calotype.train.lora_file import Adapter, to_kohya
from calotype.train.networks import load_network, network_of
from calotype.train.publish import publish_result

FAMILIES = ["flux.1-dev", "sd3-medium", "sdxl", "sd-1.5"]
RANK = 4
LINEAR1 = ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp")


def adapted(model, **options):
    """A network whose adapters are random, as after training; what they add to each layer's weight, by its name."""
    models = frozen(model)
    weights = load_network(models, torch.float32)
    options = TrainConfig(lora_rank=RANK, gradient_checkpointing=False, **options)
    make_trainable(weights, models.spec, options, seed=0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in trained(weights).values():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return weights, models, options


def deltas(network):
    """What the adapters of a network add to the weights, as peft computes it."""
    found = {}
    for name, layer in network.named_modules():
        if hasattr(layer, "lora_A") and layer.lora_A:
            (adapter,) = layer.lora_A
            found[name] = layer.get_delta_weight(adapter)
    return found


@pytest.mark.parametrize("model", FAMILIES)
@pytest.mark.parametrize("format", [None, "diffusers"])
def test_each_family_s_lora_adds_in_diffusers_what_it_added_in_training(model, format, tmp_path):
    """With alpha ≠ rank: three quarters of it, folded into the weights."""
    weights, models, options = adapted(model, lora_alpha=3, lora_format=format, lora_targets="all")
    save_result(weights, models, options, tmp_path)
    pipe = diffusers.DiffusionPipeline.from_pretrained(tiny_pipeline(model), safety_checker=None)
    pipe.load_lora_weights(tmp_path)
    was, now = deltas(weights), deltas(getattr(pipe, network_of(models.spec).component))
    assert was.keys() == now.keys() and len(was) >= 8
    assert all(torch.allclose(was[name], now[name], rtol=1e-4, atol=1e-5) for name in was)


def read_as_kohya(tensors):
    """What is added to each layer, and by which alpha / rank: as sd-scripts, ComfyUI, A1111 and Forge read it."""
    found = {}
    for name, down in tensors.items():
        if name.endswith(".lora_down.weight"):
            layer = name.removesuffix(".lora_down.weight")
            up, alpha = tensors[f"{layer}.lora_up.weight"], tensors[f"{layer}.alpha"]
            found[layer] = (up.flatten(1) @ down.flatten(1), float(alpha) / len(down))
    return found


@pytest.mark.parametrize("model", ["flux.1-dev", "sd3-medium"])
def test_fused_layers_get_what_each_of_theirs_got(model, tmp_path):
    """The paths are those of the published checkpoints: black-forest-labs/flux's `model.py`, sd3-ref's `mmdit.py`."""
    weights, models, options = adapted(model, lora_alpha=8, lora_format="kohya", lora_targets="all")
    read = read_as_kohya(load_file(save_result(weights, models, options, tmp_path)))
    assert all(strength == 1 for _, strength in read.values())
    was, block = deltas(weights), "transformer_blocks.0."
    if model == "flux.1-dev":
        expected = {
            "double_blocks_0_img_attn_qkv": [f"{block}attn.to_{x}" for x in "qkv"],
            "double_blocks_0_img_attn_proj": [f"{block}attn.to_out.0"],
            "double_blocks_0_img_mlp_0": [f"{block}ff.net.0.proj"],
            "double_blocks_0_img_mlp_2": [f"{block}ff.net.2"],
            "double_blocks_0_txt_attn_qkv": [f"{block}attn.add_{x}_proj" for x in "qkv"],
            "double_blocks_0_txt_attn_proj": [f"{block}attn.to_add_out"],
            "double_blocks_0_txt_mlp_0": [f"{block}ff_context.net.0.proj"],
            "double_blocks_0_txt_mlp_2": [f"{block}ff_context.net.2"],
            "single_blocks_0_linear1": [f"single_{block}{x}" for x in LINEAR1],
            "single_blocks_0_linear2": [f"single_{block}proj_out"],
        }
    else:
        expected = {
            "joint_blocks_0_x_block_attn_qkv": [f"{block}attn.to_{x}" for x in "qkv"],
            "joint_blocks_0_x_block_attn_proj": [f"{block}attn.to_out.0"],
            "joint_blocks_0_x_block_mlp_fc1": [f"{block}ff.net.0.proj"],
            "joint_blocks_0_x_block_mlp_fc2": [f"{block}ff.net.2"],
            "joint_blocks_0_context_block_attn_qkv": [f"{block}attn.add_{x}_proj" for x in "qkv"],
        }
    assert read.keys() == {f"lora_unet_{name}" for name in expected}
    for name, layers in expected.items():
        whole = torch.cat([was[layer] for layer in layers])
        assert torch.allclose(read[f"lora_unet_{name}"][0], whole, rtol=1e-4, atol=1e-5)


def test_a_layer_of_a_fused_one_without_an_adapter_adds_nothing(tmp_path):
    """As by default: FLUX.1's single blocks have adapters on q, k and v, and none on the MLP."""
    weights, models, options = adapted("flux.1-dev", lora_format="kohya")
    (delta, _) = read_as_kohya(load_file(save_result(weights, models, options, tmp_path)))[
        "lora_unet_single_blocks_0_linear1"
    ]
    was = deltas(weights)
    rows = [was[f"single_transformer_blocks.0.attn.to_{x}"] for x in "qkv"]
    assert torch.allclose(delta[: 3 * len(rows[0])], torch.cat(rows), rtol=1e-4, atol=1e-5)
    assert not delta[3 * len(rows[0]) :].any() and len(delta) > 3 * len(rows[0])


def of_real_widths(layers, width, more):
    """Adapters of rank 1 whose numbers tell them apart."""
    return {
        layer: Adapter(torch.full((1, 2), float(n + 1)), torch.full((more.get(layer.rsplit(".")[-1], width), 1), 1.0))
        for n, layer in enumerate(layers)
    }


class Widths:
    """Stands for FLUX.1's transformer of 12 billion weights: only its layers' outputs are asked for."""

    config = None

    def get_submodule(self, layer):
        return torch.nn.Linear(1, 12288 if layer.endswith("proj_mlp") else 3072, device="meta")


def test_diffusers_reads_flux_s_kohya_layout_back_to_the_layers_that_were_trained():
    attention = ("to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")
    layers = [f"transformer_blocks.18.{x}" for x in (*(f"attn.{x}" for x in attention), "ff.net.0.proj", "ff.net.2")]
    layers += [f"single_transformer_blocks.37.{x}" for x in (*LINEAR1, "proj_out")]
    adapters = of_real_widths(layers, 3072, {"proj_mlp": 12288})
    read = diffusers.FluxPipeline.lora_state_dict(to_kohya(adapters, Widths(), family="flux.1"))
    assert {name.rpartition(".lora_")[0].removeprefix("transformer.") for name in read} == set(layers)
    for layer, adapter in adapters.items():
        up, down = (read[f"transformer.{layer}.lora_{x}.weight"] for x in "BA")
        assert torch.equal(up @ down, adapter.up @ adapter.down)


SDXL = {  # of the model on the hub: what decides which layers there are
    "block_out_channels": (32, 64, 128),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2, 3),
    "use_linear_projection": True,
    "cross_attention_dim": 32,
    "attention_head_dim": (1, 2, 4),
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 8,
    "projection_class_embeddings_input_dim": 80,
}


def test_every_layer_of_sdxl_has_the_path_of_the_original_code_and_comes_back_from_it():
    """Through diffusers' reading of sd-scripts' files; the paths themselves as A1111 has its modules."""
    with torch.device("meta"):
        unet = diffusers.UNet2DConditionModel(**SDXL)
    layers = [n for n, x in unet.named_modules() if isinstance(x, torch.nn.Linear | torch.nn.Conv2d)]
    one = Adapter(torch.ones(1, 2), torch.ones(2, 1))
    named = to_kohya(dict.fromkeys(layers, one), unet, family="sdxl")
    paths = {name.partition(".")[0].removeprefix("lora_unet_") for name in named}
    assert len(paths) == len(layers)
    module = r"(input_blocks_\d|output_blocks_\d|middle_block)_\d(_.+)?|time_embed_[02]|label_emb_0_[02]|out_2"
    assert all(re.fullmatch(module, path) and "attentions" not in path for path in paths)
    known = {"input_blocks_4_1_transformer_blocks_1_attn2_to_k", "output_blocks_5_2_conv", "input_blocks_3_0_op"}
    assert known | {"middle_block_1_transformer_blocks_2_ff_net_0_proj", "output_blocks_0_1_proj_in"} <= paths
    attention = [name for name in layers if ".attentions." in name]
    named = to_kohya(dict.fromkeys(attention, one), unet, family="sdxl")
    read = diffusers.StableDiffusionXLPipeline.lora_state_dict(named, unet_config=unet.config)[0]
    back = {re.sub(r"(\.processor|\.lora|_lora)+\.(up|down)\.weight$", "", name.removeprefix("unet.")) for name in read}
    back = {re.sub(r"\.processor\.", ".", name) for name in back}
    assert back == {name.removesuffix(".0") if name.endswith("to_out.0") else name for name in attention}


def test_the_file_says_what_it_is_to_programs_that_sort_by_it(tmp_path):
    said = {}
    for model in FAMILIES:
        weights, models, options = adapted(model, output_dir=f"{tmp_path}/my-lora", lora_alpha=1)
        with safe_open(save_result(weights, models, options, tmp_path / model), "pt") as file:
            said[model] = file.metadata()
            assert all(tensor.isfinite().all() for tensor in map(file.get_tensor, file.keys()))
    assert said["sdxl"]["ss_base_model_version"].startswith("sdxl_")  # A1111's and Forge's rule
    assert said["sd-1.5"]["ss_network_module"] == "networks.lora"
    assert said["flux.1-dev"]["modelspec.architecture"] == "flux-1-dev/lora"
    for one in said.values():
        assert one["ss_output_name"] == "my-lora" and one["ss_network_dim"] == one["ss_network_alpha"] == str(RANK)
        assert ("lora_adapter_metadata" in one) is ("ss_network_module" not in one)


def test_a_result_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    weights, models, options = adapted("sd-1.5")
    events, fsync, rename = [], os.fsync, Path.rename
    monkeypatch.setattr(
        os, "fsync", lambda fd: (events.append(Path(os.readlink(f"/proc/self/fd/{fd}")).name), fsync(fd))
    )
    monkeypatch.setattr(Path, "rename", lambda path, to: (events.append("renamed"), rename(path, to)))
    publish_result(tmp_path, lambda folder: save_result(weights, models, options, folder), size=0)
    named = events.index("renamed")
    assert LORA_FILE in events[:named] and events[named + 1 :] == [tmp_path.name]


def test_what_flux_s_default_leaves_out_is_said_and_offered_by_name():
    weights, _, _ = adapted("flux.1-dev")
    assert left_out(weights) == (
        "note: the LoRA is on 15 layers, as in diffusers' script; 2 more linear layers of the blocks are left out "
        "(proj_mlp, proj_out): lora_targets: all has them"
    )
    weights, _, _ = adapted("flux.1-dev", lora_targets="all")
    assert left_out(weights) is None
    assert {"single_transformer_blocks.0.proj_mlp", "single_transformer_blocks.0.proj_out"} < deltas(weights).keys()
    assert "proj_out" not in deltas(weights)  # the one behind the blocks


def test_a_layer_that_the_layout_has_no_name_for_is_refused_before_training():
    with pytest.raises(ConfigError, match=r"kohya's layout has no name for norm_out.linear; lora_format: diffusers"):
        adapted("flux.1-dev", lora_targets=["norm_out.linear"], lora_format="kohya")
