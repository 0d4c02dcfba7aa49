"""The options of a training run, as a config's `train` section has them. Needs no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Final, Literal, Self, get_args

from calotype.errors import ConfigError, unknown_key
from calotype.recipes.effects import check_effects, recipe_rules, sample_rules

__all__ = ["LORA_OPTIONS", "TrainOptions", "is_alpha"]

Method = Literal["lora", "full"]
Precision = Literal["bf16", "no"]
Average = Literal["image", "batch"]
Format = Literal["kohya", "diffusers"]

_SCHEDULE: Final = "constant"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainOptions:
    """How to train. A step is one of the optimizer: `gradient_accumulation_steps` batches on every rank.

    Raises:
        ConfigError: A value that can't be.
    """

    output_dir: str = "output"
    """Where the LoRA or the whole network, `checkpoints/`, `samples/` and the trackers' `logs/` go; by default
    `train_config` calls it after the config, as `photos-lora`."""
    max_steps: int = 1000
    """Steps of the whole run, those before a resume included."""

    method: Method = "lora"
    """`lora` trains low-rank adapters beside the frozen transformer or U-Net, `full` the network itself."""
    lora_rank: int = 16
    """Rank of the adapters."""
    lora_alpha: float | None = None
    """The adapters' output is scaled by alpha / rank; None is the rank, so by 1."""
    lora_targets: Sequence[str] | Literal["all"] | None = None
    """Endings of the layers' names that get adapters; `all` is every linear layer of the blocks' attention and
    feed-forward; None is what diffusers' training scripts adapt."""
    lora_format: Format | None = None
    """How the LoRA file names its layers: `kohya` as sd-scripts, `diffusers` as diffusers; None is what most programs
    read, `kohya` for SD 1.5 and SDXL, `diffusers` for FLUX.1 and SD3."""

    lora_weights: str | None = None
    """A LoRA file to start from, or its folder; then the rank and the layers are its own."""

    learning_rate: float = 1e-4
    """AdamW's. Full fine-tuning usually takes a tenth of it."""
    weight_decay: float = 1e-4
    """AdamW's."""
    lr_scheduler: str = _SCHEDULE
    """A name of diffusers' `get_scheduler`: `constant`, `constant_with_warmup`, `linear`, `cosine`, …"""
    lr_warmup_steps: int = 0
    """Steps in which the learning rate rises from zero, for a schedule that warms up."""
    gradient_accumulation_steps: int = 1
    """Batches to a step, on every rank."""
    loss_average: Average = "image"
    """What the loss is averaged over: with `image` a batch of fewer than `batch_size` images counts for less, so that
    each image of an epoch pulls alike; with `batch` each batch does, so that the images of a short one pull harder."""
    max_grad_norm: float = 1.0
    """Longer gradients are cut to this norm; 0 cuts none."""
    ema_decay: float | None = None
    """Keep an exponential moving average of the trained weights, and use it for samples, validation and the result."""

    mixed_precision: Precision | None = None
    """`bf16`, or `no` for float32; None is `bf16` on a GPU. What is trained is kept in float32 either way."""
    gradient_checkpointing: bool = True
    """Compute activations again in the backward pass: a third more time, far less memory."""
    guidance: float = 1.0
    """The guidance that FLUX.1-dev is told in training; diffusers' examples train with 1. Other models have none."""

    log_every: int = 10
    """Steps between two lines of progress, which are what trackers get too."""
    trackers: Sequence[str] = ("tensorboard",)
    """Accelerate's names: `tensorboard`, `wandb`, `comet_ml`, `aim`, `mlflow`, …; an empty list is none."""
    checkpoint_every: int = 250
    """Steps between checkpoints; 0 is one at the end alone."""
    keep_checkpoints: int = 2
    """Older ones are deleted."""
    validation_every: int = 250
    """Steps between validations, where the dataset has a `validation` share."""

    sample_prompts: Sequence[str] = ()
    """Pictures are made of these while training: the trigger goes in here too, nothing is added."""
    sample_every: int = 250
    """Steps between them; there are some at the end too."""
    sample_steps: int = 28
    """Denoising steps of a picture."""
    sample_guidance: float = 3.5
    """The guidance scale of a picture."""
    sample_size: Sequence[int] | None = None
    """[height, width] in pixels; None is that of the bucket with the most pictures."""

    MAY_CHANGE: ClassVar[frozenset[str]] = frozenset(
        {"output_dir", "max_steps", "log_every", "trackers", "checkpoint_every", "keep_checkpoints", "validation_every"}
        | {"lora_format", "sample_prompts", "sample_every", "sample_steps", "sample_guidance", "sample_size"}
    )
    """What a resumed run may have otherwise: it decides when the run ends and what is shown, not what is computed."""
    BEFORE: ClassVar[Mapping[str, Any]] = {"loss_average": "batch"}
    """What a checkpoint that is older than an option was trained with."""

    def __post_init__(self) -> None:
        for names, low in (
            (_POSITIVE, 1),
            (("lr_warmup_steps", "checkpoint_every", "sample_every"), 0),
        ):
            for name in names:
                value = getattr(self, name)
                if isinstance(value, bool) or not isinstance(value, int) or value < low:
                    raise _wrong(name, value, f"a whole number, {low} or more")
        for name in ("learning_rate", "max_grad_norm", "weight_decay", "guidance", "sample_guidance"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
                raise _wrong(name, value, "a number, 0 or more (YAML reads 1e-4 as text: write 1.0e-4)")
        if not (self.lora_alpha is None or is_alpha(self.lora_alpha)):
            raise _wrong("lora_alpha", self.lora_alpha, "a number above 0: adapters scaled by 0 learn nothing")
        if self.ema_decay is not None and not (isinstance(self.ema_decay, float) and 0 < self.ema_decay < 1):
            raise _wrong("ema_decay", self.ema_decay, "a number between 0 and 1, such as 0.999")
        if self.method not in get_args(Method):
            raise _wrong("method", self.method, "lora or full")
        if self.lora_format not in (None, *get_args(Format)):
            raise _wrong("lora_format", self.lora_format, "kohya or diffusers")
        if self.loss_average not in get_args(Average):
            raise _wrong("loss_average", self.loss_average, "image or batch")
        if self.mixed_precision not in (None, *get_args(Precision)):
            raise _wrong("mixed_precision", self.mixed_precision, "bf16 or no")
        if not isinstance(self.gradient_checkpointing, bool):
            raise _wrong("gradient_checkpointing", self.gradient_checkpointing, "true or false")
        for name in ("output_dir", "lr_scheduler", "lora_weights"):
            if name == "lora_weights" and self.lora_weights is None:
                continue
            if not isinstance(getattr(self, name), str) or not getattr(self, name):
                raise _wrong(name, getattr(self, name), "a text")
        for name in ("sample_prompts", "trackers", "lora_targets"):
            value = getattr(self, name)
            if value in (None, "all") and name == "lora_targets":
                continue
            if not isinstance(value, list | tuple) or not all(isinstance(one, str) for one in value):
                raise _wrong(name, value, "a list of texts" + (", or all" if name == "lora_targets" else ""))
        size = self.sample_size
        if size is not None and not (
            isinstance(size, list | tuple) and len(size) == 2 and all(type(side) is int and side > 0 for side in size)
        ):
            raise _wrong("sample_size", size, "[height, width] in pixels")

    @classmethod
    def of(cls, section: Mapping[str, Any]) -> Self:
        """The options of a config's section.

        Raises:
            ConfigError: One is unknown (names the nearest), or has no effect beside the others.
        """
        known = cls.names()
        for key in section:
            if key not in known:
                raise unknown_key("train", key, known)
        options = cls(**{k: value for k, value in section.items() if not (value is None and k in LORA_OPTIONS)})
        rules = [*recipe_rules(section, lora=LORA_OPTIONS, schedule=_SCHEDULE), *sample_rules(section)]
        check_effects("train", section, rules)
        if options.sample_prompts and options.sample_every == 0:
            raise _wrong(
                "sample_every",
                0,
                "a whole number of steps: sample_prompts: [] makes no images, and a sample_every of max_steps or more "
                "those at the end alone",
            )
        return options

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """What the options are called."""
        return tuple(field.name for field in fields(cls))


LORA_OPTIONS: Final = ("lora_rank", "lora_alpha", "lora_targets", "lora_format", "lora_weights")
"""Those that are about adapters; null leaves one out."""

_POSITIVE = (
    "max_steps",
    "lora_rank",
    "gradient_accumulation_steps",
    "log_every",
    "keep_checkpoints",
    "validation_every",
    "sample_steps",
)


def is_alpha(value: Any) -> bool:
    """Whether adapters can be scaled by it."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < float("inf")


def _wrong(name: str, value: Any, expected: str) -> ConfigError:
    return ConfigError(f"train.{name}: found {value!r}, expected {expected}")
