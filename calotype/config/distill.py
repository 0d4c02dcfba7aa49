"""`DistillConfig`: the options of a distillation. Needs no torch."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Final, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from calotype.config.derived import Derived
from calotype.config.effects import DISTILL, check_section, check_targets
from calotype.config.expected import Expected
from calotype.config.section import Count, CountOrZero, Rate, Section, Text, Texts
from calotype.config.train import Alpha, Method, Precision
from calotype.errors import ConfigError

__all__ = ["DistillConfig"]

_LORA_OPTIONS: Final = ("lora_rank", "lora_alpha", "lora_targets")


def _with_backend(teacher: Mapping[str, Any]) -> Mapping[str, Any]:
    if not isinstance(teacher.get("backend"), str):
        raise ValueError("names no backend")
    return teacher


Student = Annotated[str, Field(min_length=1), Expected("the model that is to learn: a folder, or a name on the hub")]
Teacher = Annotated[
    Literal["dataset"] | Annotated[Mapping[str, Any], AfterValidator(_with_backend)],
    Expected("'dataset', or a mapping such as {backend: http, url: …, model: …}"),
]
Presets = Annotated[
    Text | Annotated[Sequence[str], Field(min_length=1)],
    Expected("the name of a preset, or a list of them"),
]


class DistillConfig(Section):
    """Who teaches whom, and how. A step of the optimizer takes `gradient_accumulation_steps` batches on every rank."""

    name: ClassVar[str] = "distill"
    example: ClassVar[str] = "student: …"
    null_is_default: ClassVar[Collection[str] | None] = (*_LORA_OPTIONS, "lr_warmup_steps")

    student: Student
    """The model that learns: a folder, or a name on the hub. One with a chat template that takes images."""
    revision: Text | None = None
    """Of a student on the hub."""
    teacher: Teacher = "dataset"
    """`dataset`: the captions that are there. Else a captioner that makes them: {backend: http, url: …,
    model: …} and the other options of that backend."""
    preset: Presets = "descriptive"
    """The prompts for the teacher and the student: names of presets, or files. With the captions of
    a dataset, those that these captions would answer."""
    n: Annotated[Count | None, Derived("one for each preset")] = None
    """Number of captions that the teacher makes of each image."""
    class_word: Text | None = None
    """What presets call {class_word}: man, dog, teapot."""
    pixels: Count = 1 << 20
    """Larger images are made smaller until they have so many, for both of them."""
    max_tokens: Count = 512
    """Of the student's answers; longer ones are left out of training."""

    output_dir: Text = "distilled"
    """Where the student goes when it is done, with `report.json`, `checkpoints/` and `scores/` beside it."""
    max_steps: Count = 1000
    """Steps of the whole run, those before a resume included."""
    batch_size: Count = 4
    """Images of a batch, on every rank."""
    gradient_accumulation_steps: Count = 4
    """Batches to a step, on every rank."""
    method: Method = "lora"
    """`lora` trains low-rank adapters and merges them into the student at the end, `full` trains all of it."""
    lora_rank: Count = 16
    """Rank of the adapters."""
    lora_alpha: Annotated[Alpha | None, Derived("twice lora_rank, so a factor of 2")] = None
    """The adapters' output is scaled by alpha / rank."""
    lora_targets: Annotated[
        Texts | None, Derived("all linear layers but the last, those of the vision tower included")
    ] = None
    """Endings of the layers' names that get adapters."""
    learning_rate: Rate = 1e-4
    """AdamW's. Full fine-tuning usually takes a tenth of it."""
    weight_decay: Rate = 0.0
    """AdamW's."""
    lr_scheduler: Text = "cosine"
    """A name of transformers' `get_scheduler`: `constant`, `linear`, `cosine`, …"""
    lr_warmup_steps: CountOrZero = 0
    """Steps in which the learning rate rises from zero, for a schedule that warms up."""
    max_grad_norm: Rate = 1.0
    """Longer gradients are cut to this norm; 0 cuts none."""
    mixed_precision: Annotated[Precision | None, Derived("bf16 on a GPU, else no")] = None
    """`bf16`, or `no` for float32. What is trained is kept in float32 either way."""
    gradient_checkpointing: bool = True
    """Compute activations again in the backward pass: a third more time, far less memory."""
    device: Annotated[Literal["cpu"] | None, Expected("cpu, or nothing for the GPUs that are there")] = None
    """`cpu` stays off a GPU that is there."""
    seed: CountOrZero = 0
    """Of the adapters' beginning, the order, and dropout where the student has any."""

    log_every: Count = 10
    """Steps between two lines of progress."""
    checkpoint_every: CountOrZero = 250
    """Steps between checkpoints; 0 is one at the end alone."""
    keep_checkpoints: Count = 2
    """Older ones are deleted."""
    validation_every: Count = 250
    """Steps between two losses on held-out images."""
    validation_images: Count = 256
    """Scores are of at most so many of the held-out images, evenly picked."""

    MAY_CHANGE: ClassVar[frozenset[str]] = frozenset(
        {"output_dir", "max_steps", "log_every", "checkpoint_every", "keep_checkpoints", "validation_every", "device"}
    )
    """What a resumed run may have otherwise: it decides when the run ends and what is shown, not what is computed."""
    BEFORE: ClassVar[Mapping[str, Any]] = {}
    """What a checkpoint that is older than an option was trained with."""

    @property
    def presets(self) -> tuple[str, ...]:
        """The presets' names, whether one or several were given."""
        return (self.preset,) if isinstance(self.preset, str) else tuple(self.preset)

    @model_validator(mode="before")
    @classmethod
    def _names_a_student(cls, options: Any) -> Any:
        if isinstance(options, Mapping) and options.get("student") is None:
            raise ConfigError(
                "distill.student: the model that is to learn was expected: a folder, or a name on the hub such as "
                "HuggingFaceTB/SmolVLM-500M-Instruct"
            )
        return options

    @model_validator(mode="after")
    def _have_effects(self) -> Self:
        check_section(self, DISTILL)
        check_targets(self)
        return self
