"""`model:` is a file of weights, a LoRA or one network: the error says which, and what to do."""

import json
import sys

import pytest

from calotype.cli import main
from calotype.encodings.frozen import FrozenModels
from calotype.errors import ConfigError


def weights(path, *names):
    """A safetensors file with these tensors, each of one byte."""
    path.parent.mkdir(parents=True, exist_ok=True)
    header = {name: {"dtype": "U8", "shape": [1], "data_offsets": [i, i + 1]} for i, name in enumerate(names)}
    text = json.dumps({"__metadata__": {"format": "pt"}} | header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(len(names)))
    return path


def network(folder, kind):
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"_class_name": kind}))
    return folder


SDXL = "conditioner.embedders.1.model.ln_final.weight"


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([SDXL, "model.diffusion_model.out.2.weight"], r"single-file checkpoint \(SDXL\).*StableDiffusionXLPipeline\."),
        (["cond_stage_model.transformer.a"], r"\(Stable Diffusion\).*StableDiffusionPipeline\.from_single_file"),
        (["text_encoders.clip_l.a", "model.diffusion_model.joint_blocks.0.a"], r"\(SD3\)"),
        (["double_blocks.0.img_attn.qkv.weight"], r"transformer of FLUX\.1 alone.*FluxTransformer2DModel"),
        (["model.diffusion_model.double_blocks.0.a"], r"transformer of FLUX\.1 alone"),
        (["joint_blocks.0.a"], r"transformer of SD3 alone"),
        (["lora_unet_down_blocks_0.lora_up.weight"], r"is a LoRA, not a model; name the base model"),
        (["transformer.blocks.0.lora_A.weight"], r"is a LoRA"),
        (["something.else"], r"single-file checkpoint;.*or the class of its model's pipeline"),
    ],
)
def test_a_safetensors_file_is_named_by_its_header(tmp_path, names, message):
    file = weights(tmp_path / "my model.safetensors", *names)
    with pytest.raises(ConfigError, match=f"my model.safetensors {message}|my model.safetensors is .*{message}"):
        FrozenModels(str(file))


def test_other_files(tmp_path):
    for name, message in (
        ("a.ckpt", "single-file checkpoint"),
        ("a.GGUF", "quantised weights of one network"),
        ("damaged.safetensors", "single-file checkpoint"),
        ("readme.md", "is a file; a diffusers pipeline's folder"),
    ):
        (tmp_path / name).write_bytes(b"\xff" * 9)
        with pytest.raises(ConfigError, match=message):
            FrozenModels(tmp_path / name)
    with pytest.raises(ConfigError, match=r"there is no file nowhere/a.safetensors \(looked in"):
        FrozenModels("nowhere/a.safetensors")  # no name of the hub


def test_folders_that_are_no_pipeline(tmp_path):
    weights(tmp_path / "lora" / "pytorch_lora_weights.safetensors", "unet.a.lora_A.weight")
    weights(tmp_path / "single" / "xl.safetensors", SDXL)
    network(tmp_path / "alone", "FluxTransformer2DModel")
    network(tmp_path / "vae", "AutoencoderKL")
    network(tmp_path / "run" / "unet", "UNet2DConditionModel")
    network(tmp_path / "pipe" / "unet", "UNet2DConditionModel")
    (tmp_path / "pipe" / "model_index.json").write_text("{}")
    (tmp_path / "llm").mkdir()
    (tmp_path / "llm" / "config.json").write_text('{"model_type": "llama"}')
    for name, message in {
        "lora": "it holds a LoRA, not a model",
        "single": r"it holds xl.safetensors, which is a single-file checkpoint \(SDXL\)",
        "alone": r"one network alone \(FluxTransformer2DModel\).*transformer=network",
        "vae": "vae=network",
        "run": r"its unet folder: it holds one network alone \(UNet2DConditionModel\).*unet=network",
        "pipe/unet": r"one part of the pipeline in .*pipe; then model: .*pipe",
        "llm": r"a model of transformers \(llama\)",
    }.items():
        with pytest.raises(ConfigError, match=message):
            FrozenModels(tmp_path / name)


@pytest.mark.parametrize("command", ["train", "encode", "bench", "info", "check", "init"])
def test_every_command_says_what_to_do(tmp_path, monkeypatch, capsys, command):
    monkeypatch.chdir(tmp_path)
    weights(tmp_path / "xl.safetensors", SDXL)
    (tmp_path / "photos").mkdir()
    more = ["--trigger", "x"] if command == "init" else []
    monkeypatch.setattr(sys, "argv", ["calotype", command, "photos", "--model", "xl.safetensors", *more])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "from_single_file('xl.safetensors').save_pretrained('xl')" in line and line.endswith("then model: xl")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["photos", "xl.safetensors"]
