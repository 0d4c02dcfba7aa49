"""`TrainConfig`: the options of a training run. Needs no torch."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Final, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from calotype.config.derived import Derived
from calotype.config.effects import TRAIN, check_section, check_targets
from calotype.config.expected import Expected
from calotype.config.section import Count, CountOrZero, Rate, Section, Text, Texts
from calotype.errors import ConfigError

__all__ = ["LORA_OPTIONS", "Alpha", "Method", "Precision", "TrainConfig"]

Method = Literal["lora", "full"]
Precision = Annotated[
    Literal["bf16", "no"],
    BeforeValidator(lambda value: "no" if value is False else value),  # YAML reads a bare `no` as false
]
Average = Literal["image", "batch"]
Format = Literal["kohya", "diffusers"]
Alpha = Annotated[
    float,
    Field(gt=0, allow_inf_nan=False),
    Expected("a number above 0: adapters scaled by 0 learn nothing"),
]
Decay = Annotated[float, Field(gt=0, lt=1), Expected("a number between 0 and 1, such as 0.999")]
Side = Annotated[int, Field(ge=1)]
Size = Annotated[Sequence[Side], Field(min_length=2, max_length=2), Expected("[height, width] in pixels")]

LORA_OPTIONS: Final = ("lora_rank", "lora_alpha", "lora_targets", "lora_format", "lora_weights")
"""Those that are about adapters; null leaves one out."""


class TrainConfig(Section):
    """How to train. A step of the optimizer takes `gradient_accumulation_steps` batches on every rank."""

    name: ClassVar[str] = "train"
    example: ClassVar[str] = "max_steps: 1000"
    null_is_default: ClassVar[Collection[str] | None] = (
        *LORA_OPTIONS,
        *("guidance", "lr_warmup_steps", "sample_every", "sample_guidance", "sample_size", "sample_steps"),
        *("loss_average", "sample_prompts", "validation_every"),
    )

    output_dir: Annotated[Text, Derived("the config's name with -lora, or -full for method: full")] = "output"
    """Where the LoRA or the whole network, `checkpoints/`, `samples/` and the trackers' `logs/` go."""
    max_steps: Count = 1000
    """Steps of the whole run, those before a resume included."""

    method: Method = "lora"
    """`lora` trains low-rank adapters beside the frozen transformer or U-Net, `full` the network itself."""
    lora_rank: Count = 16
    """Rank of the adapters."""
    lora_alpha: Annotated[Alpha | None, Derived("lora_rank, so a factor of 1")] = None
    """The adapters' output is scaled by alpha / rank."""
    lora_targets: Annotated[
        Sequence[str] | Literal["all"] | None,
        Expected("a list of texts, or all"),
        Derived("what diffusers' training scripts adapt"),
    ] = None
    """Endings of the layers' names that get adapters; `all` is every linear layer of the blocks' attention and
    feed-forward."""
    lora_format: Annotated[
        Format | None, Derived("what most programs read: kohya for SD 1.5 and SDXL, diffusers for FLUX.1 and SD3")
    ] = None
    """How the LoRA file names its layers: `kohya` as sd-scripts, `diffusers` as diffusers."""

    lora_weights: Text | None = None
    """A LoRA file to start from, or its folder; then the rank and the layers are its own."""

    learning_rate: Rate = 1e-4
    """AdamW's. Full fine-tuning usually takes a tenth of it."""
    weight_decay: Rate = 1e-4
    """AdamW's."""
    lr_scheduler: Text = "constant"
    """A name of diffusers' `get_scheduler`: `constant`, `constant_with_warmup`, `linear`, `cosine`, …"""
    lr_warmup_steps: CountOrZero = 0
    """Steps in which the learning rate rises from zero, for a schedule that warms up."""
    gradient_accumulation_steps: Count = 1
    """Batches to a step, on every rank."""
    loss_average: Average = "image"
    """What the loss is averaged over: with `image` a batch of fewer than `batch_size` images counts for less, so that
    each image of an epoch pulls alike; with `batch` each batch does, so that the images of a short one pull harder."""
    max_grad_norm: Rate = 1.0
    """Longer gradients are cut to this norm; 0 cuts none."""
    ema_decay: Decay | None = None
    """Keep an exponential moving average of the trained weights, and use it for samples, validation and the result."""

    mixed_precision: Annotated[Precision | None, Derived("bf16 on a GPU, else no")] = None
    """`bf16`, or `no` for float32. What is trained is kept in float32 either way."""
    gradient_checkpointing: bool = True
    """Compute activations again in the backward pass: a third more time, far less memory."""
    guidance: Rate = 1.0
    """The guidance input of FLUX.1-dev in training; diffusers' examples train with 1. Other models have none."""

    log_every: Count = 10
    """Steps between two lines of progress, which are what trackers get too."""
    trackers: Texts = ("tensorboard",)
    """Accelerate's names: `tensorboard`, `wandb`, `comet_ml`, `aim`, `mlflow`, …; an empty list is none."""
    checkpoint_every: CountOrZero = 250
    """Steps between checkpoints; 0 is one at the end alone."""
    keep_checkpoints: Count = 2
    """Older ones are deleted."""
    validation_every: Count = 250
    """Steps between validations, where the dataset has a `validation` share."""

    sample_prompts: Texts = ()
    """Images are made of these while training: the trigger goes in here too, nothing is added."""
    sample_every: CountOrZero = 250
    """Steps between them; there are some at the end too."""
    sample_steps: Count = 28
    """Denoising steps of an image."""
    sample_guidance: Rate = 3.5
    """The guidance scale of an image."""
    sample_size: Annotated[Size | None, Derived("that of the bucket with the most images")] = None
    """[height, width] in pixels."""

    MAY_CHANGE: ClassVar[frozenset[str]] = frozenset(
        {"output_dir", "max_steps", "log_every", "trackers", "checkpoint_every", "keep_checkpoints", "validation_every"}
        | {"lora_format", "sample_prompts", "sample_every", "sample_steps", "sample_guidance", "sample_size"}
    )
    """What a resumed run may have otherwise: it decides when the run ends and what is shown, not what is computed."""
    BEFORE: ClassVar[Mapping[str, Any]] = {"loss_average": "batch"}
    """What a checkpoint that is older than an option was trained with."""

    @model_validator(mode="after")
    def _have_effects(self) -> Self:
        check_section(self, TRAIN)
        check_targets(self)
        if self.sample_prompts and self.sample_every == 0:
            raise ConfigError(
                "train.sample_every: found 0, expected a whole number of steps: sample_prompts: [] makes no images, "
                "and a sample_every of max_steps or more those at the end alone"
            )
        return self
