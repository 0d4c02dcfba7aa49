"""A YAML file and overrides become plain values, then objects; slips are errors that name the way out."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import pytest
import skimage
import yaml
from omegaconf import OmegaConf

from calotype.config import Config, build_dataset, build_loader, instantiate, load_config
from calotype.config.dataset import DatasetConfig
from calotype.config.train import TrainConfig
from calotype.errors import ConfigError


@pytest.fixture
def write(tmp_path):
    def write(text, name="config.yaml"):
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write


@pytest.fixture
def parts(tmp_path, monkeypatch):
    """Stand-ins beside the config, found because the program runs there: they keep what they were called with."""
    (tmp_path / "calotype_test_parts.py").write_text(
        "from types import SimpleNamespace\n"
        "def tokenizer(*, path): return SimpleNamespace(path=path)\n"
        "def dataset(model_transform=None, *, path, model=None, tokenizers=None, img_transform=None, packed=False):\n"
        "    return SimpleNamespace(**locals())\n"
        "def loader(dataset, *, batch_size, seed=0): return SimpleNamespace(**locals())\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield "calotype_test_parts"
    sys.modules.pop("calotype_test_parts", None)


# --- reading


def test_references_are_resolved_and_the_result_is_plain(write):
    config = load_config(
        write("root: /data\nsizes: {side: 256}\ndataset:\n  path: ${root}/d.tsv\n  resolution: ${sizes.side}\n")
    )
    assert config["dataset"] == {"path": "/data/d.tsv", "resolution": 256}
    assert type(config) is dict
    assert type(config["dataset"]) is dict


def test_a_folder_or_data_file_is_a_dataset_with_default_options():
    assert load_config("photos/") == {"dataset": {"path": "photos/"}}
    assert load_config("d.parquet", ["model=flux.1-dev", "resolution=512", "loader.batch_size=2"]) == {
        "dataset": {"path": "d.parquet", "resolution": 512},
        "model": "flux.1-dev",
        "loader": {"batch_size": 2},
    }


def test_a_name_with_a_brace_or_a_scheme_stays_as_it_is():
    assert load_config("s3://bucket/{000..009}.tar")["dataset"]["path"] == "s3://bucket/{000..009}.tar"


@pytest.mark.parametrize(
    ("text", "messages"),
    [
        ("dataset:\n  path: [a, b\nloader: 1\n", ["config.yaml, line 3, column 7", "begins at line 2, column 9"]),
        ("dataset:\n\tpath: x\n", ["config.yaml, line 2, column 1", "found a tab; expected spaces"]),
        ("model: a\nmodel: b\n", ["config.yaml, line 2, column 1", "found duplicate key model"]),
        ("- a\n", ["expected a mapping (key: value) at the top, found a list"]),
        ("dataset:\n  path: ${rot}/d.tsv\n", ["config.yaml: dataset.path: ", "'rot' not found", "${section.key}"]),
        ("dataset:\n  path: ${rot\n", ["config.yaml: dataset.path: ", "${section.key}"]),
        ("dataset:\n  path: ???\n", ["dataset.path has no value (???)", "add dataset.path=…"]),
    ],
)
def test_a_broken_file_says_where(write, text, messages):
    with pytest.raises(ConfigError) as caught:
        load_config(write(text))
    for message in messages:
        assert message in str(caught.value)


def test_a_file_that_is_not_there_or_not_text(tmp_path):
    with pytest.raises(ConfigError, match=r"nothing.yaml: there is no such config file"):
        load_config(tmp_path / "nothing.yaml")
    (tmp_path / "photo.yaml").write_bytes(b"\xff\xd8\xff\xe0")
    with pytest.raises(ConfigError, match="is not UTF-8 text"):
        load_config(tmp_path / "photo.yaml")


def test_what_the_trainer_leaves_open_is_not_ours_to_refuse(write):
    config = load_config(write("dataset: {path: p}\ncheckpointer:\n  dir: ???\noptimizer: {lr: 1e-4}\n"))
    assert config["optimizer"] == {"lr": 1e-4}


# --- overrides


def test_overrides_reach_any_depth_and_the_last_wins(write):
    path = write("dataset:\n  path: a\n  img_transform: {resize: 256}\nepochs: 1\n")
    config = load_config(
        path,
        [
            "dataset.img_transform.resize=[512,384]",
            "caption_transform.drop=0.1",
            "epochs=3",
            "dataset.path=b=c",
            "dataset.path=d=e",
            "loader.seed=7",
            "include=[id,text]",
        ],
    )
    assert config == {
        "dataset": {
            "path": "d=e",
            "img_transform": {"resize": [512, 384]},
            "caption_transform": {"drop": 0.1},
            "include": ["id", "text"],
        },
        "epochs": 3,
        "loader": {"seed": 7},
    }


def test_an_override_is_seen_by_references_and_may_hold_one(write):
    path = write("root: /a\ndataset:\n  path: ${root}/d.tsv\n")
    assert load_config(path, ["root=/b"])["dataset"]["path"] == "/b/d.tsv"
    assert load_config(path, ["dataset.root=${root}"])["dataset"]["root"] == "/a"


def test_overrides_carry_yaml_values():
    config = load_config("p", ["resolution=1e-3", "split=null", "buckets=false", "trigger='12'", "data_files=[a,b]"])
    assert config["dataset"] == {
        "path": "p",
        "resolution": 0.001,
        "split": None,
        "buckets": False,
        "caption_transform": {"trigger": "12"},
        "data_files": ["a", "b"],
    }


def test_a_mapping_is_merged_and_anything_else_replaces(write):
    path = write("dataset:\n  img_transform: {resize: 256, random_crop: {scale: 0.5}}\n  include: [id, text]\n")
    overrides = ["img_transform={resize: 512}", "dataset.img_transform.random_crop=[]", "include=[id]"]
    assert load_config(path, overrides)["dataset"] == {
        "img_transform": {"resize": 512, "random_crop": []},
        "include": ["id"],
    }
    assert load_config(path, ["img_transform=null"])["dataset"]["img_transform"] is None


def test_a_name_for_a_component_keeps_its_options_as_in_torchtune(write):
    path = write("tokenizer:\n  _component_: calotype.FluxTransform\n  t5_max_seq_len: 256\n")
    config = load_config(path, ["tokenizer=my_code.Transform"])
    assert config["tokenizer"] == {"_component_": "my_code.Transform", "t5_max_seq_len": 256}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("batch_size", "override 'batch_size': expected key=value, such as loader.batch_size=4"),
        ("=4", "expected key=value"),
        ("loader..seed=4", "expected key=value"),
        ("datset.path=x", "override 'datset.path=x': unknown option 'datset'; did you mean 'dataset'?"),
        ("loadr.seed=1", "did you mean 'loader'?"),
        ("tokeniser=x", "did you mean 'tokenizer'?"),
        ("lr=1e-4", "override 'lr=1e-4': unknown option 'lr'; did you mean 'train.learning_rate'?"),
        ("rank=8", "override 'rank=8': 2 options may be meant; write 'loader.rank=8' or 'train.lora_rank=8'"),
        ("weights=w", "2 options may be meant; write 'encodings.weights=w' or 'train.lora_weights=w'"),
        ("on_error=skip", "2 options may be meant; write 'dataset.on_error=skip' or 'loader.on_error=skip'"),
        ("max_images=9", "write 'dataset.pixel_cache.max_images=9' or 'dataset.downloads.max_images=9'"),
        ("steps=9", "did you mean 'train.max_steps', 'train.sample_steps' or 'train.lr_warmup_steps'?"),
        ("num_workers=2", "did you mean 'loader.threads'?"),
        ("batch-size=2", "did you mean 'loader.batch_size'?"),
        ("qqq=1", "unknown option 'qqq'; `calotype config keys` lists those there are"),
        ("dataset.path.root=x", "override 'dataset.path.root=x': dataset.path is 'photos', which has no 'root' in it"),
        ("dataset.path=${root", "override 'dataset.path=${root': '${root' is not a YAML value"),
        ("include=[id,", "override 'include=[id,': '[id,' is not a YAML value"),
    ],
)
def test_an_override_that_can_not_be_meant_is_an_error(override, message):
    with pytest.raises(ConfigError) as caught:
        load_config("photos", [override])
    assert message in str(caught.value)


def test_a_pattern_that_the_shell_expanded_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "b.jpg").touch()
    with pytest.raises(ConfigError, match=r"^b\.jpg: is a further source; expected one: .*a pattern in quotes"):
        load_config("a.jpg", ["b.jpg"])


# --- keys at the top


@pytest.mark.parametrize(("slip", "right"), [("datset", "dataset"), ("tokenizr", "tokenizer"), ("modle", "model")])
def test_a_slip_at_the_top_is_an_error(write, slip, right):
    path = write(f"{slip}: {{path: p}}\n")
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert f"config.yaml: unknown option '{slip}'; did you mean '{right}'?" in str(caught.value)
    with pytest.raises(ConfigError, match=f"did you mean '{right}'"):
        build_dataset({slip: {"path": "p"}})


def test_the_keys_of_a_torchtune_recipe_are_left_alone(write, parts):
    path = write(
        "output_dir: /tmp/out\n"
        f"dataset: {{_component_: {parts}.dataset, path: p, packed: false}}\n"
        "dataset_val: {path: q}\n"
        f"tokenizer: {{_component_: {parts}.tokenizer, path: t}}\n"
        "model: {_component_: torchtune.models.flux.flux_1_dev}\n"
        "seed: null\nshuffle: true\nbatch_size: 2\ncollate_fn: calotype.data.collate.collate\n"
        "checkpointer: {output_dir: '${output_dir}'}\nloss: {_component_: torch.nn.MSELoss}\n"
    )
    dataset = build_dataset(load_config(path))
    assert dataset.path == "p"
    assert dataset.model is None
    assert dataset.model_transform.path == "t"


# --- objects


def test_instantiate_means_what_torchtune_means():
    config = OmegaConf.create({"half": 2, "x": {"_component_": "fractions.Fraction", "denominator": "${half}"}})
    assert instantiate(config.x, 1) == Fraction(1, 2)
    assert instantiate({"_component_": "fractions.Fraction", "numerator": 1, "denominator": 5}, denominator=4) == (
        Fraction(1, 4)
    )
    assert instantiate(None) is None
    nested = instantiate({"_component_": "types.SimpleNamespace", "x": OmegaConf.to_container(config, resolve=True)})
    assert nested.x["x"] == Fraction(0, 2)


def test_instantiate_without_a_component_is_an_error():
    with pytest.raises(ConfigError, match=r"expected a mapping with _component_: package.module.name, found"):
        instantiate({"path": "x"})


def test_the_tokenizer_reaches_the_dataset_first(write, parts):
    path = write(
        f"dataset:\n  _component_: {parts}.dataset\n  path: p\n  img_transform: {{resize: [256, 256]}}\n"
        f"tokenizer: {{_component_: {parts}.tokenizer, path: t}}\n"
    )
    dataset = build_dataset(load_config(path, ["dataset.packed=true"]))
    assert dataset.model_transform.path == "t"
    assert dataset.img_transform == {"resize": [256, 256]}
    assert dataset.packed is True


def test_a_models_name_and_its_tokenizers_reach_the_dataset(parts):
    config = {
        "dataset": {"_component_": f"{parts}.dataset", "path": "p"},
        "model": "flux.1-dev",
        "tokenizers": "tokenizers/",
    }
    dataset = build_dataset(config)
    assert (dataset.model, dataset.tokenizers) == ("flux.1-dev", "tokenizers/")
    assert dataset.model_transform is None
    assert config["dataset"] == {"_component_": f"{parts}.dataset", "path": "p"}


def test_the_loader_gets_the_dataset_and_its_options(parts):
    config = {
        "dataset": {"_component_": f"{parts}.dataset", "path": "p"},
        "loader": {"_component_": f"{parts}.loader", "batch_size": 3},
    }
    loader = build_loader(config)
    assert (loader.dataset.path, loader.batch_size, loader.seed) == ("p", 3, 0)
    config["loader"]["batchsize"] = 3
    with pytest.raises(ConfigError, match=r"loader \(\S+\): unknown option 'batchsize'; did you mean 'batch_size'"):
        build_loader(config)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, "there is no 'dataset'; it needs at least dataset.path=…"),
        ({"dataset": None}, "there is no 'dataset'"),
        ({"dataset": "photos/"}, "'dataset' must be a mapping such as {path: a folder"),
        ({"dataset": {"path": "p", "model": "a"}, "model": "b"}, "'model' stands at the top and in 'dataset' as well"),
        ({"dataset": {"path": "p"}, "tokenizer": "flux"}, "'tokenizer' must be a mapping with _component_"),
        ({"dataset": {"path": "p"}, "tokenizer": {"path": "t"}}, "such as calotype.FluxTransform"),
    ],
)
def test_a_config_that_can_not_be_built(config, message):
    with pytest.raises(ConfigError) as caught:
        build_dataset(config)
    assert message in str(caught.value)


def test_importing_the_module_loads_neither_torch_nor_omegaconf():
    code = (
        "import sys, calotype.config; print([m for m in ('torch', 'omegaconf', 'yaml', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# --- the real parts, from a file to a batch


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    data = Path(skimage.__file__).parent / "data"
    for name in ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg"):
        shutil.copy(data / name, folder)
        (folder / name).with_suffix(".txt").write_text(f"a photo, {name}", encoding="utf-8")
    return folder


def test_a_yaml_file_becomes_batches_of_real_photos(write, photos):
    path = write(
        f"side: 64\ndataset:\n  path: {photos}\n  include: [id, text]\n"
        "  img_transform: {resize: '${side}', center_crop: true}\n"
        "loader: {batch_size: 2, in_process: true, threads: 1}\n"
    )
    config = load_config(path, ["caption_transform.trigger=sks", "loader.seed=3"])
    dataset, loader = build_dataset(config), build_loader(config)
    assert len(dataset) == 4
    seen = {}
    for batch in loader:
        assert batch["img"].shape == (2, 3, 64, 64)
        seen |= dict(zip(batch["id"], batch["text"], strict=True))
    assert seen == {name: f"sks, a photo, {name}" for name in sorted(path.name for path in photos.glob("*.[pj]*"))}


def test_a_component_inside_the_config_changes_the_pixels(write, photos):
    path = write(
        f"dataset:\n  path: {photos}\n  img_transform:\n    resize: [32, 48]\n"
        "    custom: {_component_: torchvision.transforms.v2.Grayscale, num_output_channels: 3}\n"
    )
    grey = build_dataset(load_config(path))[0]["img"]
    colour = build_dataset(load_config(path, ["dataset.img_transform.custom=[]"]))[0]["img"]
    assert grey.shape == colour.shape == (3, 32, 48)
    assert (grey[0] == grey[2]).all()
    assert not (colour[0] == colour[2]).all()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("img_transform.horizontal_filp=0.5", "img_transform: unknown option 'horizontal_filp'; did you mean 'horizon"),
        ("caption_transform.shufle_parts=0.5", "caption_transform: unknown option 'shufle_parts'; did you mean 'shuff"),
        ("loader.batchsize=2", "loader (calotype.Loader): unknown option 'batchsize'; did you mean 'batch_size'?"),
        ("model=flux.1-dv", "no model 'flux.1-dv'; did you mean 'flux.1-dev'?"),
    ],
)
def test_a_misspelt_option_of_a_real_part_is_named_at_construction(photos, override, message):
    with pytest.raises(ConfigError) as caught:
        build_loader(load_config(photos, ["loader.batch_size=1", override]))
    assert message in str(caught.value)


# --- options of training


def test_they_reach_their_section_without_its_name(write):
    config = load_config(write("dataset: {path: a}"), ["max_steps=10", "output_dir=out", "resolution=256"])
    assert config["train"] == {"max_steps": 10, "output_dir": "out"}
    assert config["dataset"] == {"path": "a", "resolution": 256}
    assert not [name for name in TrainConfig.names() if name in DatasetConfig.names()]  # none has two homes


@pytest.mark.parametrize(
    ("option", "key"),
    [
        ("batch_size=4", "loader.batch_size"),
        ("store=x", "encodings.store"),
        ("allow_private=true", "dataset.fetch.allow_private"),
        ("fetch.retries=0", "dataset.fetch.retries"),
        ("random_crop.scale=[0.5,1]", "dataset.img_transform.random_crop.scale"),
        ("resolution=512", "dataset.resolution"),  # not that of the buckets, which are further in
        ("guidance=2", "train.guidance"),
    ],
)
def test_an_option_of_one_section_needs_no_name_of_it(option, key):
    found = load_config("photos", [option])
    for part in key.split("."):
        found = found[part]
    assert found == yaml.safe_load(option.partition("=")[2])


def test_where_a_config_distills_its_options_come_first(write):
    config = load_config(write("{dataset: {path: a}, distill: {student: x}}"), ["batch_size=2", "max_steps=3"])
    assert config["distill"] == {"student": "x", "batch_size": 2, "max_steps": 3}


def test_an_option_of_another_section_is_suggested_with_it():
    for options, meant in [
        ({"train": {"batch_size": 4}}, "train: unknown option 'batch_size'; did you mean 'loader.batch_size'?"),
        ({"train": {"lr": 1}}, "train: unknown option 'lr'; did you mean 'train.learning_rate'?"),
        ({"dataset": {"drop": 0.1}}, "unknown option 'drop'; did you mean 'dataset.caption_transform.drop'?"),
        ({"dataset": {"qqq": 1}}, "dataset: unknown option 'qqq' (`calotype config keys dataset` lists all)"),
    ]:
        with pytest.raises(ConfigError, match=re.escape(meant)):
            Config.parse(options)


def test_a_slip_in_one_names_the_right_one(write):
    with pytest.raises(ConfigError, match=r"unknown option 'max_step'; did you mean 'train\.max_steps'"):
        load_config(write("dataset: {path: a}"), ["max_step=10"])
    with pytest.raises(ConfigError, match="unknown option 'trian'; did you mean 'train'"):
        load_config(write("{dataset: {path: a}, trian: {}}"))


def test_a_dataset_of_ones_own_may_have_an_option_of_the_loader_s_name(write):
    config = load_config(write("dataset: {_component_: mine.data}"), ["batch_size=4"])
    assert config["dataset"] == {"_component_": "mine.data", "batch_size": 4}


def test_lightning_s_trainer_is_left_alone(write):
    config = load_config(write("{dataset: {path: a}, trainer: {devices: 2}}"), ["trainer.devices=4"])
    assert config["trainer"] == {"devices": 4}
