"""What a person gives has an effect, or is an error that says why; zeros mean off or are refused; one seed is one."""

import pytest

from calotype import train
from calotype.config import Config, load_config, open_training
from calotype.config.distill import DistillConfig
from calotype.config.effects import check_guidance
from calotype.config.train import TrainConfig
from calotype.errors import ConfigError


@pytest.mark.parametrize(
    ("section", "message"),
    [
        (
            {"method": "full", "lora_rank": 8},
            r"lora_rank: has no effect .*leave it out, or lora_rank=null",
        ),
        ({"method": "full", "lora_targets": "all"}, "lora_targets: has no effect with method: full"),
        ({"method": "full", "lora_format": "kohya"}, "lora_format: has no effect"),
        ({"lr_warmup_steps": 10}, "lr_warmup_steps: has no effect with lr_scheduler: constant; constant_with_warmup"),
        ({"sample_steps": 4}, "sample_steps: has no effect without sample_prompts"),
        ({"sample_size": [64, 64]}, "sample_size: has no effect without sample_prompts"),
        ({"sample_prompts": ["a"], "sample_every": 0}, "sample_every: found 0, expected a whole number of steps"),
        ({"lora_alpha": 0}, "lora_alpha: found 0, expected a number above 0"),
        ({"lora_alpha": True}, "lora_alpha: found True"),
        ({"lora_rank": 0}, "lora_rank: found 0"),
        ({"keep_checkpoints": 0}, "keep_checkpoints: found 0"),
        ({"log_every": 0}, "log_every: found 0"),
        ({"validation_every": 0}, "validation_every: found 0"),
        ({"lora_targets": "some"}, "lora_targets: found 'some', expected a list of texts, or all"),
        ({"lora_targets": []}, "lora_targets: found none, expected endings of layers' names"),
        ({"loss_average": "sum"}, "loss_average: found 'sum', expected image or batch"),
        ({"lora_format": "onnx"}, "lora_format: found 'onnx', expected kohya or diffusers"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_options_of_training_without_an_effect_are_errors(section, message):
    with pytest.raises(ConfigError, match=f"train.{message}"):
        TrainConfig.of(section)


def test_a_bare_no_in_yaml_is_the_precision_of_that_name(tmp_path):
    """Some YAML readers give false for it, and messages recommend `mixed_precision: no`."""
    file = tmp_path / "photos.yaml"
    file.write_text("dataset: {path: photos}\ntrain: {mixed_precision: no}\n")
    assert Config.parse(load_config(file)).train.mixed_precision == "no"
    assert TrainConfig.of({"mixed_precision": False}).mixed_precision == "no"
    assert DistillConfig.of({"student": "a", "mixed_precision": False}).mixed_precision == "no"
    with pytest.raises(ConfigError, match="mixed_precision: found True, expected bf16 or no"):
        TrainConfig.of({"mixed_precision": True})


def test_what_turns_another_option_off_leaves_it_in_peace():
    assert TrainConfig.of({"sample_prompts": [], "sample_every": 250}).sample_prompts == []
    full = TrainConfig.of({"method": "full", "lora_rank": None, "lora_targets": None})
    assert full == TrainConfig(method="full")
    assert TrainConfig.of({"lr_scheduler": "constant", "lr_warmup_steps": 0}).lr_warmup_steps == 0
    assert TrainConfig.of({"lr_scheduler": "cosine", "lr_warmup_steps": 5}).lr_warmup_steps == 5
    assert TrainConfig.of({"max_grad_norm": 0}).max_grad_norm == 0
    Config.parse({"train": {"validation_every": 5}, "dataset": {"validation": 0}})


def test_validation_and_guidance_need_what_they_are_of():
    with pytest.raises(ConfigError, match=r"validation_every: has no effect without dataset.validation"):
        Config.parse({"train": {"validation_every": 5}})
    both = TrainConfig.of({"guidance": 1.0, "sample_prompts": ["a"], "sample_guidance": 5.0})
    sampled = TrainConfig.of({"sample_prompts": ["a"], "sample_guidance": 5.0})
    with pytest.raises(ConfigError, match=r"train.guidance: has no effect with sdxl, whose network takes no"):
        check_guidance(both, "sdxl", embeds=False, guides=True)
    with pytest.raises(ConfigError, match=r"sample_guidance: has no effect with flux.1-schnell"):
        check_guidance(sampled, "flux.1-schnell", embeds=False, guides=False)
    check_guidance(both, "flux.1-dev", embeds=True, guides=False)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"method": "full", "lora_alpha": 8}, "lora_alpha: has no effect with method: full"),
        ({"lr_scheduler": "constant", "lr_warmup_steps": 10}, "lr_warmup_steps: has no effect"),
        ({"n": 2}, "n: has no effect with teacher: dataset"),
        ({"lora_targets": []}, "lora_targets: found none"),
        ({"lora_alpha": 0}, "lora_alpha: found 0"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_options_of_distilling_without_an_effect_are_errors(section, message):
    with pytest.raises(ConfigError, match=f"distill.{message}"):
        DistillConfig.of({"student": "any", **section})


@pytest.fixture
def file(tmp_path):
    def write(text):
        path = tmp_path / "run.yaml"
        path.write_text(f"model: sdxl\n{text}")
        return path

    return write


def test_a_seed_on_the_command_line_is_that_of_the_run_whatever_the_file_says(file):
    for text in ("dataset: {path: p}\n", "dataset: {path: p, seed: 1}\n", "dataset: {path: p}\nloader: {seed: 7}\n"):
        config = load_config(file(text), ["seed=2"])
        assert config["dataset"]["seed"] == 2 and config.get("loader", {}).get("seed", 2) == 2
    both = file("dataset: {path: p, seed: 1}\nloader: {seed: 7}\n")
    with pytest.raises(ConfigError, match=r"dataset.seed is 1 and loader.seed is 7; .*keep one of them"):
        load_config(both)
    assert load_config(both, ["seed=2"])["loader"]["seed"] == 2
    with pytest.raises(ConfigError, match=r"dataset.seed is 2 and loader.seed is 7"):
        load_config(file("dataset: {path: p}\nloader: {seed: 7}\n"), ["dataset.seed=2"])


def test_a_seed_at_the_top_is_no_seed_of_a_training(file):
    config = load_config(file("seed: 3\ndataset: {path: p}\ntrain: {}\n"), ["seed=2"])
    with pytest.raises(ConfigError, match=r"'seed' at the top is another trainer's; write dataset.seed"):
        open_training(config, device="cpu")


def test_a_device_that_the_run_is_not_on_is_refused(tmp_path):
    config = {"train": {"trackers": [], "output_dir": str(tmp_path)}, "loader": {"device": "mps:7"}}
    with pytest.raises(ConfigError, match=r"loader.device: found mps:7, and accelerate trains on"):
        train.run(config)


@pytest.mark.parametrize(
    ("option", "values"),
    {
        "lora_rank": (-1, 1.5, "4", True),
        "max_steps": (0, "many"),
        "gradient_accumulation_steps": (0,),
        "keep_checkpoints": (-1, None),
        "checkpoint_every": (-1, None),
        "ema_decay": (0, 1, 1.0, 0.0, -0.5, "0.9", float("nan")),
        "learning_rate": (-1e-4, "fast", float("nan"), float("inf")),
        "lora_alpha": (-1, "8", float("nan")),
        "sample_size": ([64], 64, [64, -64], [64.0, 64]),
    }.items(),
)
def test_numbers_that_can_not_be_are_refused(option, values):
    section = {"sample_prompts": ["a"]} if option == "sample_size" else {}
    for value in values:
        with pytest.raises(ConfigError, match=f"train.{option}: found .*, expected "):
            TrainConfig.of({**section, option: value})


def test_exponents_are_numbers_in_the_file_and_on_the_command_line(file):
    written = file("dataset: {path: p}\ntrain: {learning_rate: 1e-4}\n")
    assert load_config(written)["train"]["learning_rate"] == 1e-4
    assert load_config(written, ["learning_rate=2e-5"])["train"]["learning_rate"] == 2e-5
