"""The schema of a config: what it refuses and how it says so, and that functions and pages agree with it."""

import ast
import inspect
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

import calotype
from calotype.config import Config, read_config
from calotype.config.caption_transform import CaptionTransformConfig
from calotype.config.component import Component
from calotype.config.dataset import MANIFEST_OPTIONS, DatasetConfig
from calotype.config.encodings import EncodingConfig
from calotype.config.image_files import DownloadsConfig, FetchConfig, PixelCacheConfig
from calotype.config.img_transform import ImageTransformConfig
from calotype.config.loader import LoaderConfig
from calotype.config.meanings import meanings
from calotype.config.reference import json_schema, key_tables
from calotype.config.train import TrainConfig
from calotype.data.pixel_cache import PixelCache
from calotype.errors import ConfigError
from calotype.images import Downloads, Fetcher
from calotype.manifest import load_manifest
from calotype.manifest.options import ManifestOptions
from calotype.train.checkpoint import _plain

ROOT = Path(__file__).parents[2]


# --- errors


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"dataset": {"path": "p", "pth": 1}}, "dataset: unknown option 'pth'; did you mean 'path'?"),
        (
            {"loader": {"batchsize": 2}},
            "loader (calotype.Loader): unknown option 'batchsize'; did you mean 'batch_size'?",
        ),
        ({"loader": {"batch_size": "2"}}, "loader.batch_size: found '2', expected a whole number, 1 or more"),
        ({"loader": {"batch_size": True}}, "loader.batch_size: found True, expected a whole number, 1 or more"),
        ({"loader": {"remainder": "keep"}}, "loader.remainder: found 'keep', expected one of short, repeat, drop"),
        ({"loader": {"shuffle": "no"}}, "loader.shuffle: found 'no', expected true or false"),
        ({"loader": "fast"}, "config: 'loader' must be a mapping such as {batch_size: 4}, and is 'fast'"),
        ({"train": [1]}, "config: 'train' must be a mapping such as {max_steps: 1000}, and is [1]"),
        ({"train": {"max_step": 1}}, "train: unknown option 'max_step'; did you mean 'max_steps'?"),
        ({"encodings": {"dtype": "fp16"}}, "encodings.dtype: found 'fp16', expected one of bfloat16, float16, float32"),
        ({"encodings": {"image_variants": 0}}, "encodings.image_variants: found 0, expected a whole number, 1 or more"),
        ({"encodings": {"on_the_fly": 1}}, "encodings.on_the_fly: found 1, expected true or false"),
        (
            {"dataset": {"buckets": {"multipel": 8}}},
            "dataset.buckets: unknown option 'multipel'; did you mean 'multiple'?",
        ),
        (
            {"dataset": {"buckets": {"max_aspect": 0}}},
            "dataset.buckets.max_aspect: found 0, expected a number of at least 1",
        ),
        ({"dataset": {"buckets": 64}}, "dataset.buckets: found 64, expected true or false"),
        ({"dataset": {"resolution": [512]}}, "dataset.resolution: found [512], expected one number or [height, width]"),
        ({"dataset": {"fetch": {"timout": 3}}}, "dataset.fetch: unknown option 'timout'; did you mean 'timeout'?"),
        ({"dataset": {"recursive": "yes"}}, "dataset.recursive: found 'yes', expected true or false"),
        ({"dataset": {"validation": "5%"}}, "dataset.validation: found '5%', expected a share of the images"),
        (
            {"dataset": {"img_transform": {"color_jitter": {"hue": [0.2, -0.2]}}}},
            "dataset.img_transform.color_jitter.hue: found [0.2, -0.2], expected 0 to 0.5, such as 0.05, or [min, max]",
        ),
        (
            {"dataset": {"img_transform": {"random_crop": {"scales": 1}}}},
            "dataset.img_transform.random_crop: unknown option 'scales'; did you mean 'scale'?",
        ),
        (
            {"dataset": {"caption_transform": {"template": "{trigger}, {caption}"}}},
            "dataset.caption_transform.template: found '{trigger}, {caption}' and no trigger; set trigger",
        ),
        ({"dataset": {"path": 5}}, "dataset.path: found 5, expected a path, a hub name, or a list of paths"),
        ({"dataset": {"path": True}}, "dataset.path: found True, expected a path"),
        ({"dataset": {"source": ["a", 2024]}}, "dataset.source: found ['a', 2024], expected a path"),
        ({"dataset": {"path": "p", "data_files": 5}}, "dataset.data_files: found 5, expected a file, a list of files"),
        (
            {"dataset": {"path": "p", "data_files": {"train": [5]}}},
            "dataset.data_files: found {'train': [5]}, expected",
        ),
        ({"dataset": {"resolution": 1_000_000}}, "dataset.resolution: found 1000000, expected one number or [height"),
        ({"datset": {}}, "config: unknown option 'datset'; did you mean 'dataset'?"),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else "",
)
def test_an_error_names_key_value_expectation_and_the_nearest_right_name(config, message):
    with pytest.raises(ConfigError) as caught:
        Config.parse(config)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_a_misspelt_option_of_any_section_is_an_error_on_the_command_line(tmp_path):
    (tmp_path / "c.yaml").write_text("dataset: {path: p}\n")
    with pytest.raises(ConfigError, match="train: unknown option 'lerning_rate'; did you mean 'learning_rate'"):
        read_config(tmp_path / "c.yaml", ["train.lerning_rate=1"])


def test_from_python_only_the_sections_that_are_used_are_looked_at():
    theirs = {"dataset": {"path": "no/such"}, "train": {"lr": 1}, "loader": {"workers": 3}}
    with pytest.raises(calotype.CalotypeError, match="no/such"):
        calotype.build_dataset(theirs)
    assert Config.parse(theirs, only=("dataset",)).train is None


def test_a_trainers_own_sections_stay_and_null_is_the_default():
    config = Config.parse({"dataset": {"path": "p", "seed": None}, "optimizer": {"lr": 1}, "trainer": {"devices": 2}})
    assert config.extra == {"optimizer": {"lr": 1}, "trainer": {"devices": 2}}
    assert config.dataset.seed == 0
    assert config.to_mapping() == {"dataset": {"path": "p"}, "optimizer": {"lr": 1}, "trainer": {"devices": 2}}


def test_code_of_the_users_own_is_a_component_and_calotypes_is_not():
    config = Config.parse(
        {"dataset": {"_component_": "mine.data", "anything": 1}, "loader": {"_component_": "calotype.Loader"}}
    )
    assert config.dataset == Component({"_component_": "mine.data", "anything": 1})
    assert config.loader == LoaderConfig()
    with pytest.raises(ConfigError, match=r"loader .calotype.Loader.: unknown option 'x'"):
        Config.parse({"loader": {"_component_": "calotype.Loader", "x": 1}})


def test_containers_of_omegaconf_are_plain_values():
    config = Config.parse(
        OmegaConf.create({"side": 64, "dataset": {"path": ["a", "b"], "resolution": ["${side}", 32]}})
    )
    assert config.dataset.path == ["a", "b"] and type(config.dataset.path) is list
    assert config.dataset.resolution == [64, 32]


def test_sections_are_frozen_and_checked_again_when_updated():
    with pytest.raises(ValueError, match="frozen"):
        LoaderConfig().batch_size = 2
    with pytest.raises(ConfigError, match="batch_size: found 0"):
        LoaderConfig().updated(batch_size=0)
    assert LoaderConfig.of({"seed": 1}).updated(batch_size=2).given() == {"seed": 1, "batch_size": 2}


# --- the same dataset without its model, leniently, in two sides


def test_variants_of_a_config_keep_every_other_key():
    options = {"path": "p", "columns": {"image": "x"}, "exclude": "*.gif", "validation": 0.2, "fetch": {"retries": 0}}
    config = Config.parse(
        {"dataset": {**options, "tokenizers": "t"}, "model": "sdxl", "loader": {"batch_size": 3}, "mine": 1}
    )
    bare = config.without_model(model="sd1.5")
    assert bare.dataset.given() | {"model": "sd1.5", "tokenizers": None} == bare.dataset.given()
    assert {key: bare.to_mapping()["dataset"][key] for key in options} == options
    assert bare.model_name is None and bare.tokenizer.path == "calotype.PixelsTransform"
    assert (bare.loader.batch_size, bare.extra) == (3, {"mine": 1})
    training, held_out = config.sides()
    assert (training.dataset.split, held_out.dataset.split) == ("train", "validation")
    assert held_out.dataset.given() == config.dataset.given() | {"split": "validation"}
    lenient = config.lenient()
    assert (lenient.dataset.on_error, lenient.dataset.missing_captions) == ("skip", "empty")
    assert config.with_dataset(missing_captions="a cat").lenient().dataset.missing_captions == "a cat"
    assert config.with_dataset(validation=0).sides()[1] is None


def test_variants_of_a_users_own_dataset():
    config = Config.parse({"dataset": {"_component_": "mine.data", "x": 1}, "model": "sdxl", "tokenizers": "t"})
    assert config.without_model(model="sdxl").dataset.mapping == {"_component_": "mine.data", "x": 1, "model": "sdxl"}
    with pytest.raises(ConfigError, match=r"dataset: mine.data can't be captioned; expected a dataset of calotype"):
        config.our_dataset("captioned")


# --- agreement


def defaults(function, *, without=()):
    parameters = inspect.signature(function).parameters.values()
    return {one.name: one.default for one in parameters if one.name not in without and one.default is not one.empty}


def test_functions_take_the_options_of_the_schema_with_its_defaults():
    def of(section, *, without=()):
        return {name: field.default for name, field in section.model_fields.items() if name not in without}

    flat = defaults(calotype.text_to_image_dataset, without=("model_transform", "ledger"))
    assert flat == of(DatasetConfig, without=MANIFEST_OPTIONS)
    rows = defaults(load_manifest, without=("path", "source", "missing_captions", "on_error", "ledger"))
    assert rows == {name: DatasetConfig.model_fields[name].default for name in MANIFEST_OPTIONS}
    assert set(ManifestOptions.__annotations__) == set(MANIFEST_OPTIONS)  # what type checkers know of the flat ones
    assert defaults(calotype.ImageTransform) == of(ImageTransformConfig)
    assert defaults(calotype.CaptionTransform) == of(CaptionTransformConfig)
    assert defaults(calotype.Loader, without=("ledger",)) == of(LoaderConfig)
    assert defaults(Fetcher, without=("downloads",)) == of(FetchConfig)
    assert defaults(PixelCache, without=("device",)) == of(PixelCacheConfig)
    assert defaults(Downloads) == of(DownloadsConfig, without=("directory",))


def test_a_checkpoint_keeps_the_options_as_before():
    options = TrainConfig.of(
        {"max_steps": 6, "lora_alpha": 4, "trackers": [], "sample_prompts": ["a"], "sample_size": [64, 32]}
    )
    kept = _plain(options)
    assert list(kept) == list(TrainConfig.names())
    assert {k: v for k, v in kept.items() if k in options.given()} == {
        "max_steps": 6, "lora_alpha": 4, "trackers": [], "sample_prompts": ["a"], "sample_size": [64, 32]
    }  # fmt: skip
    assert (kept["learning_rate"], kept["lora_targets"], kept["method"]) == (1e-4, None, "lora")


def test_every_option_says_what_it_means():
    for section in (Config, DatasetConfig, LoaderConfig, EncodingConfig, TrainConfig):
        assert [name for name in section.model_fields if not meanings(section).get(name)] == []


def test_the_page_and_the_json_schema_are_those_of_the_code():
    page = (ROOT / "docs" / "config.md").read_text("utf-8")
    table = page.partition("<!-- keys -->\n")[2].partition("\n<!-- end of keys -->")[0]
    assert table == key_tables(), "put the output of calotype.config.reference.key_tables() into docs/config.md"
    written = json.loads((ROOT / "docs" / "config.schema.json").read_text("utf-8"))
    assert written == json_schema(), "run: calotype config schema > docs/config.schema.json"


def test_the_json_schema_knows_the_sections_and_refuses_other_options():
    schema = json_schema()
    assert schema["additionalProperties"] is True and set(schema["properties"]) == set(Config.names())
    assert schema["$defs"]["LoaderConfig"]["additionalProperties"] is False
    assert schema["$defs"]["LoaderConfig"]["properties"]["remainder"]["anyOf"] == [
        {"enum": ["short", "repeat", "drop"], "type": "string"},
        {"type": "null"},
    ]
    for transform in ("ImageTransformConfig", "CaptionTransformConfig"):  # editors complete within these too
        assert schema["$defs"][transform]["additionalProperties"] is False
    assert schema["$defs"]["ImageTransformConfig"]["properties"]["rotate"]["anyOf"][0]["maximum"] == 180
    assert schema["properties"]["tokenizer"]["anyOf"][0]["required"] == ["_component_"]


def test_the_json_schema_takes_null_where_a_config_does():
    """As in `lr_warmup_steps: null`, which errors advise: an editor must not underline it."""
    schema = json_schema()
    sections = {DatasetConfig, LoaderConfig, EncodingConfig, TrainConfig, FetchConfig, CaptionTransformConfig}
    differ = []
    for section in sections:
        for name, shown in schema["$defs"][section.__name__]["properties"].items():
            try:
                section.of({name: None})
                taken = True
            except ConfigError:
                taken = False
            forms = shown.get("anyOf", [shown])
            if taken != ({"type": "null"} in forms):
                differ.append(f"{section.__name__}.{name}: {taken}")
    assert differ == []


# --- the packages


_CONFIGS = {*Config.names(), "config", "given", "option", "options", "section", "settings", "values"}
_RAW = re.compile(r"\b([Mm]apping|[Dd]ict)(\[str, (Any|object)\]|(?!\[))")
_BOUNDARIES = {
    "captioning/command.py::_on_cluster",  # options of a captioner's backend, which has its own
    "captioning/ray_engine.py::__init__",
    "captioning/ray_engine.py::caption_on_cluster",
    "models/tokenizer.py::_add_tokens",  # a tokenizer's config.json
    "models/tokenizer.py::_listed_tokens",
    "models/tokenizer.py::_token",
    "train/checkpoint.py::save",  # a loader's state_dict
    "studio/augment.py::_code",  # what the page sends
    "studio/augment.py::_dataset",
    "studio/augment.py::_edited",
    "studio/augment.py::_merged",
    "studio/augment.py::_new",
    "studio/augment.py::draw",
    "studio/augment.py::save",
    "studio/runs.py::_opened",
    "train/samples.py::watch",  # a pipeline's tensors
    "bench/strategies.py::section",  # makes a config
    "cli/common.py::make_loader",  # options that replace those of the section
    "data/build.py::_from_folder",
    "data/collate.py::__init__",  # a sample's tensors
}


def raw_configs(code):
    """The functions of a module that take a section or a config as a plain mapping, with the parameter.

    `Config | Mapping` is an entry point, which parses it at once.
    """
    for node in ast.walk(ast.parse(code)):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        for one in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs):
            words = ast.unparse(one.annotation) if one.annotation is not None else ""
            if one.arg in _CONFIGS and _RAW.search(words) and not words.startswith("Config |"):
                yield node.name, f"{one.arg}: {words}"


def test_no_function_takes_a_raw_config():
    found = {
        f"{file.relative_to(ROOT / 'calotype').as_posix()}::{function}": parameter
        for file in sorted((ROOT / "calotype").rglob("*.py"))
        if not file.is_relative_to(ROOT / "calotype" / "config")  # where it is parsed
        for function, parameter in raw_configs(file.read_text("utf-8"))
    }
    assert {where: parameter for where, parameter in found.items() if where not in _BOUNDARIES} == {}
    assert _BOUNDARIES - found.keys() == set()  # no entry outlives its function


@pytest.mark.parametrize(
    ("signature", "raw"),
    [
        ("(config: Mapping[str, Any])", True),
        ("(*, train: dict[str, object] | None = None)", True),
        ("(options: dict, /)", True),
        ("(loader: Mapping[str, Any])", True),
        ("(config: Config | Mapping[str, Any])", False),
        ("(config: Config, sample: Mapping[str, Any])", False),
        ("(options: Mapping[str, int])", False),
    ],
)
def test_what_counts_as_a_raw_config(signature, raw):
    assert bool(list(raw_configs(f"async def f{signature}: ..."))) == raw


def test_yaml_is_known_in_one_place():
    knows = {
        file.relative_to(ROOT / "calotype").as_posix()
        for file in (ROOT / "calotype").rglob("*.py")
        if "omegaconf" in file.read_text("utf-8").replace("OmegaConf", "")
    }
    assert knows == {"config/load.py", "config/overrides.py", "config/section.py"}


def test_pydantic_waits_for_a_config():
    code = "import sys, calotype, calotype.cli; print('pydantic' in sys.modules, 'torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.split() == ["False"] * 2
