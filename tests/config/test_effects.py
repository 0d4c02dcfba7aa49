"""Every option of the schema has an effect: it is refused where it has none, or this page says where its effect is."""

import re

import pytest
from pydantic import BaseModel

from calotype.config import Config
from calotype.config.combinations import ACROSS
from calotype.config.dataset import DatasetConfig
from calotype.config.effects import DISTILL, FETCH, TRAIN
from calotype.config.errors import section_of
from calotype.config.train import TrainConfig
from calotype.errors import ConfigError

PATH = {"path": "p"}

IDLE = [  # a config in which the option has no effect; what the error says
    ("dataset.resolution", {"dataset": {"resolution": 512, "buckets": {"resolution": 256}}}, "with buckets.resolution"),
    ("dataset.validation_seed", {"dataset": {"validation_seed": 3}}, "without dataset.validation"),
    ("dataset.tokenizers", {"dataset": {"tokenizers": "t"}}, "without model"),
    ("dataset.tokenizers", {"dataset": {"tokenizers": "t"}, "tokenizer": {"_component_": "m.t"}}, "with tokenizer"),
    ("tokenizers", {"tokenizers": "t"}, "without model"),
    ("tokenizers", {"tokenizers": "t", "model": {"dim": 3}}, "without model"),
    ("dataset.pixel_cache", {"dataset": {"pixel_cache": 8}, "encodings": {}}, "with encodings"),
    ("dataset.pixel_cache", {"dataset": {"pixel_cache": {"max_images": 8}}, "train": {}}, "with train"),
    ("dataset.pixel_cache", {"dataset": {"pixel_cache": 8}, "loader": {"device_cache": True}}, "with loader.device_c"),
    (
        "dataset.decode",
        {"dataset": {"decode": "fast", "pixel_cache": 8, "img_transform": {"rotate": 5}}},
        "with pixel_cache and a crop or rotation that changes",
    ),
    ("dataset.caption_transform.keep_parts", {"dataset": {"caption_transform": {"keep_parts": 1}}}, "without shuffle"),
    ("dataset.caption_transform.separator", {"dataset": {"caption_transform": {"separator": "|"}}}, "without shuffle"),
    (
        "dataset.fetch.connections_per_host",
        {"dataset": {"fetch": {"connections": 8, "connections_per_host": 9}}},
        "above connections: 8",
    ),
    ("dataset.fetch.read_timeout", {"dataset": {"fetch": {"read_timeout": 90}}}, "above timeout: 60"),
    ("loader.rank", {"loader": {"rank": 1}, "train": {}}, "with train, whose ranks come from torchrun"),
    ("loader.world_size", {"loader": {"world_size": 2}, "train": {}}, "with train"),
    ("loader.on_upscale", {"dataset": {"buckets": False}, "loader": {"on_upscale": "skip"}}, "without buckets"),
    (
        "loader.on_upscale",
        {"dataset": {"img_transform": {"resize": [64, 64]}}, "loader": {"on_upscale": "error"}},
        "without buckets",
    ),
    ("encodings.image_variants", {"encodings": {"image_variants": 2}}, "without random_crop"),
    (
        "encodings.image_variants",
        {"encodings": {"image_variants": 2}, "dataset": {"img_transform": {"horizontal_flip": 0.5, "rotate": 0}}},
        "without random_crop",
    ),
    (
        "encodings.caption_variants",
        {"encodings": {"caption_variants": 2}, "dataset": {"caption_transform": {"drop": 0.1}}},
        "without shuffle_parts, drop_parts or code",
    ),
    ("encodings.in_memory", {"encodings": {"in_memory": True}, "loader": {"device_cache": True}}, "with loader.device"),
    ("train.loss_average", {"train": {"loss_average": "batch"}}, "with loader.batch_size: 1"),
    (
        "train.loss_average",
        {"train": {"loss_average": "batch"}, "loader": {"batch_size": 4, "remainder": "drop"}},
        "with loader.batch_size: 1 or another remainder than short",
    ),
    ("train.validation_every", {"train": {"validation_every": 5}}, "without dataset.validation"),
    ("train.lr_warmup_steps", {"train": {"lr_warmup_steps": 10}}, "with lr_scheduler: constant"),
    *(
        (f"train.{name}", {"train": {"method": "full", name: value}}, "with method: full")
        for name, value in {
            "lora_rank": 8, "lora_alpha": 8, "lora_targets": "all", "lora_format": "kohya", "lora_weights": "l",
        }.items()
    ),
    *(
        (f"train.{name}", {"train": {name: value}}, "without sample_prompts")
        for name, value in {
            "sample_every": 5, "sample_steps": 4, "sample_guidance": 2.0, "sample_size": [64, 64],
        }.items()
    ),
    ("distill.lr_warmup_steps", {"distill": {"lr_scheduler": "constant", "lr_warmup_steps": 1}}, "with lr_scheduler"),
    *(
        (f"distill.{name}", {"distill": {"method": "full", name: value}}, "with method: full")
        for name, value in {"lora_rank": 8, "lora_alpha": 8, "lora_targets": ["a"]}.items()
    ),
    ("distill.n", {"distill": {"n": 2}}, "with teacher: dataset"),
    ("distill.revision", {"distill": {"student": ".", "revision": "main"}}, "with a student that is a local folder"),
]  # fmt: skip

ELSEWHERE = {  # never idle by the config alone: where it is tested that they have an effect
    "tests/config/test_config.py": "dataset model tokenizer loader encodings train distill dataset.path dataset.source "
    "dataset.model dataset.packed dataset.seed loader.seed",
    "tests/transforms/test_image_geometry.py, with test_image_pixels.py and test_image_custom.py": (
        "dataset.img_transform dataset.img_transform.resize dataset.img_transform.center_crop "
        "dataset.img_transform.random_crop dataset.img_transform.random_crop.scale "
        "dataset.img_transform.horizontal_flip dataset.img_transform.vertical_flip dataset.img_transform.color_jitter "
        "dataset.img_transform.color_jitter.brightness dataset.img_transform.color_jitter.contrast "
        "dataset.img_transform.color_jitter.saturation dataset.img_transform.color_jitter.hue "
        "dataset.img_transform.rotate dataset.img_transform.interpolation dataset.img_transform.custom"
    ),
    "tests/transforms/test_caption.py; repeat_trigger and template without a trigger are refused there": (
        "dataset.caption_transform dataset.caption_transform.drop dataset.caption_transform.shuffle_parts "
        "dataset.caption_transform.drop_parts dataset.caption_transform.choose dataset.caption_transform.trigger "
        "dataset.caption_transform.template dataset.caption_transform.repeat_trigger dataset.caption_transform.custom"
    ),
    "tests/data/test_dataset.py; buckets with resize and a wrong include are refused there": (
        "dataset.buckets dataset.buckets.resolution dataset.include dataset.missing_captions dataset.pixel_cache."
        "max_images dataset.pixel_cache.max_bytes dataset.background dataset.on_error"
    ),
    "tests/transforms/test_buckets.py": (
        "dataset.buckets.multiple dataset.buckets.max_aspect dataset.buckets.max_upscale"
    ),
    "tests/images/test_downloads.py, test_fetch.py, test_remote_headers.py; no URLs: tests/data/test_dataset.py": (
        "dataset.downloads dataset.downloads.directory dataset.downloads.max_images dataset.downloads.max_bytes "
        "dataset.fetch dataset.fetch.timeout dataset.fetch.max_bytes dataset.fetch.max_redirects dataset.fetch.retries "
        "dataset.fetch.allow_private dataset.fetch.user_agent dataset.fetch.connections"
    ),
    "tests/manifest; what an option needs in the data is known there: exclude, delimiter, caption_suffix, member_key, "
    "split, data_files and recursive are refused where the data has nothing of the kind": (
        "dataset.columns dataset.column_map dataset.split dataset.root dataset.image_dir dataset.recursive "
        "dataset.exclude dataset.caption_lines dataset.caption_suffix dataset.delimiter dataset.member_key "
        "dataset.validation dataset.data_files dataset.keep_rejected"
    ),
    "tests/loader/test_loader.py and test_plan.py; rank and world_size without each other are refused": (
        "loader.batch_size loader.device loader.threads loader.prefetch loader.in_process loader.shuffle "
        "loader.remainder loader.on_error loader.device_cache"
    ),
    "tests/encodings/test_encoded_dataset.py and test_encode.py": (
        "encodings.model encodings.spec encodings.store encodings.dtype encodings.latents encodings.on_the_fly "
        "encodings.max_sequence_length encodings.weights"
    ),
    "tests/train; guidance is refused by the model (test_options.py), the rest has an effect in each run": (
        "train.output_dir train.max_steps train.method train.learning_rate train.weight_decay train.lr_scheduler "
        "train.gradient_accumulation_steps train.max_grad_norm train.ema_decay train.mixed_precision "
        "train.gradient_checkpointing train.guidance train.log_every train.trackers train.checkpoint_every "
        "train.keep_checkpoints train.sample_prompts"
    ),
    "tests/distill; without a share held out, validation takes a tenth; class_word that no preset uses is refused": (
        "distill.student distill.teacher distill.preset distill.class_word distill.pixels distill.max_tokens "
        "distill.output_dir distill.max_steps distill.batch_size distill.gradient_accumulation_steps distill.method "
        "distill.learning_rate distill.weight_decay distill.lr_scheduler distill.max_grad_norm "
        "distill.mixed_precision distill.gradient_checkpointing distill.device distill.seed distill.log_every "
        "distill.checkpoint_every distill.keep_checkpoints distill.validation_every distill.validation_images"
    ),
}


def keys(section=Config, above=""):
    """The dotted keys of the schema."""
    for name, field in section.model_fields.items():
        yield f"{above}{name}"
        if (inner := section_of(field.annotation)) is not None and issubclass(inner, BaseModel):
            yield from keys(inner, f"{above}{name}.")


def complete(config):
    """The config with what its sections can't do without."""
    config = {**config, "dataset": PATH | config.get("dataset", {})}
    return config | ({"distill": {"student": "hub/any"} | config["distill"]} if "distill" in config else {})


def test_each_option_is_in_one_of_the_tables():
    refused = {key for key, _, _ in IDLE}
    elsewhere = [key for names in ELSEWHERE.values() for key in names.split()]
    assert sorted(refused | set(elsewhere)) == sorted(set(keys()))
    assert len(elsewhere) == len(set(elsewhere)) and not refused & set(elsewhere)


def test_each_rule_has_a_case():
    rules = [(rule, "") for rule in ACROSS]
    rules += [(rule, f"{name}.") for name, table in (("train", TRAIN), ("distill", DISTILL)) for rule in table]
    rules += [(rule, "dataset.fetch.") for rule in FETCH]
    for rule, above in rules:
        for name in rule.options.split():
            assert [key for key, _, _ in IDLE if key == above + name], f"{above}{name}"


@pytest.mark.parametrize(("key", "config", "why"), IDLE, ids=[key for key, _, _ in IDLE])
def test_an_option_without_an_effect_is_refused(key, config, why):
    with pytest.raises(ConfigError, match=f"^{re.escape(key)}: has no effect {re.escape(why)}") as caught:
        Config.parse(complete(config))
    assert str(caught.value).endswith(f"; leave it out, or {key.rpartition('.')[2]}=null")
    *sections, name = key.split(".")
    changed = inner = complete(config)
    for section in sections:
        inner[section] = inner = dict(inner[section])
    inner[name] = None
    Config.parse(changed)


def test_what_is_off_or_turned_off_is_left_in_peace():
    off = {
        "dataset": {"pixel_cache": 0, "decode": "exact", "validation": 0, "validation_seed": 3},
        "encodings": {"image_variants": None, "in_memory": False},
        "loader": {"on_upscale": "warn", "device_cache": True},
        "train": {"validation_every": 5, "loss_average": "image"},
    }
    config = Config.parse(complete(off))
    assert config.dataset.validation_seed == 3
    shuffled = {"shuffle_parts": 0, "keep_parts": 2, "separator": "|"}  # overridden on the command line, say
    config = Config.parse(complete({"dataset": {"caption_transform": shuffled}}))
    assert config.dataset.caption_transform.keep_parts == 2


@pytest.mark.parametrize(
    "config",
    [
        {"dataset": {"fetch": {"timeout": 20, "read_timeout": 20}}},
        {"dataset": {"fetch": {"connections": 8, "connections_per_host": 8}}},
    ],
    ids=["timeouts", "connections"],
)
def test_a_limit_that_is_just_reached_has_an_effect(config):
    Config.parse(complete(config))


def test_a_number_that_is_given_was_meant_even_if_it_is_the_default_and_an_empty_list_is_off():
    with pytest.raises(ConfigError, match=r"^train\.lora_rank: has no effect with method: full"):
        Config.parse(
            complete({"train": {"method": "full", "lora_rank": TrainConfig.model_fields["lora_rank"].default}})
        )
    with pytest.raises(ConfigError, match=r"^train\.lora_targets: found none"):
        Config.parse(complete({"train": {"method": "full", "lora_targets": []}}))


def test_what_code_decides_is_not_guessed():
    mine = {"_component_": "mine.transform"}
    Config.parse(complete({"encodings": {"image_variants": 2}, "dataset": {"img_transform": mine}}))
    Config.parse(complete({"encodings": {"caption_variants": 2}, "dataset": {"caption_transform": [mine]}}))
    Config.parse({"encodings": {"image_variants": 2}, "dataset": {"_component_": "mine.dataset"}, "tokenizers": "t"})
    Config.parse(complete({"loader": {"_component_": "mine.loader"}, "train": {"loss_average": "batch"}}))


def test_a_config_that_is_derived_is_not_held_to_it():
    config = Config.parse(complete({"encodings": {"image_variants": 2}, "dataset": {"img_transform": {"rotate": 5}}}))
    assert config.with_dataset(img_transform=None).encodings.image_variants == 2
    assert isinstance(config.dataset, DatasetConfig)


def test_from_python_a_rule_about_sections_that_are_not_read_says_nothing():
    config = complete({"dataset": {"pixel_cache": 8}, "encodings": {}, "train": {}})
    assert Config.parse(config, only=("dataset",)).dataset.pixel_cache == 8
