"""The options of a distillation, as a config's `distill` section has them. Needs no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Final, Literal, Self, get_args

from calotype.errors import ConfigError, unknown_key
from calotype.recipes.effects import check_effects, recipe_rules
from calotype.recipes.options import is_alpha

__all__ = ["DistillOptions"]

Method = Literal["lora", "full"]
Precision = Literal["bf16", "no"]

_SCHEDULE: Final = "cosine"
_LORA_OPTIONS: Final = ("lora_rank", "lora_alpha", "lora_targets")


@dataclass(frozen=True, slots=True, kw_only=True)
class DistillOptions:
    """Who teaches whom, and how. A step is one of the optimizer: `gradient_accumulation_steps` batches on every rank.

    Raises:
        ConfigError: A value that can't be.
    """

    student: str
    """The model that learns: a folder, or a name on the hub. One with a chat template that takes pictures."""
    revision: str | None = None
    """Of a student on the hub."""
    teacher: str | Mapping[str, Any] = "dataset"
    """`dataset`: the captions that are there. Else a captioner that is asked for them: {backend: http, url: …,
    model: …} and the other options of that backend."""
    preset: str | Sequence[str] = "descriptive"
    """What the teacher is asked for and the student learns to answer: names of presets, or files. With the captions of
    a dataset, whichever of them these captions would be the answers to."""
    n: int | None = None
    """How many captions of each picture the teacher is asked for; by default one for each preset."""
    class_word: str | None = None
    """What presets call {class_word}: man, dog, teapot."""
    pixels: int = 1 << 20
    """Larger pictures are made smaller until they have so many, for both of them."""
    max_tokens: int = 512
    """Of the student's answers; what is longer is not learnt from."""

    output_dir: str = "distilled"
    """Where the student goes when it is done, with `report.json`, `checkpoints/` and `scores/` beside it."""
    max_steps: int = 1000
    """Steps of the whole run, those before a resume included."""
    batch_size: int = 4
    """Pictures of a batch, on every rank."""
    gradient_accumulation_steps: int = 4
    """Batches to a step, on every rank."""
    method: Method = "lora"
    """`lora` trains low-rank adapters and merges them into the student at the end, `full` trains all of it."""
    lora_rank: int = 16
    """Rank of the adapters."""
    lora_alpha: float | None = None
    """The adapters' output is scaled by alpha / rank; None is twice the rank, so by 2."""
    lora_targets: Sequence[str] | None = None
    """Endings of the layers' names that get adapters; None is all linear layers but the last, those of the vision
    tower included."""
    learning_rate: float = 1e-4
    """AdamW's. Full fine-tuning usually takes a tenth of it."""
    weight_decay: float = 0.0
    """AdamW's."""
    lr_scheduler: str = _SCHEDULE
    """A name of transformers' `get_scheduler`: `constant`, `linear`, `cosine`, …"""
    lr_warmup_steps: int = 0
    """Steps in which the learning rate rises from zero, for a schedule that warms up."""
    max_grad_norm: float = 1.0
    """Longer gradients are cut to this norm; 0 cuts none."""
    mixed_precision: Precision | None = None
    """`bf16`, or `no` for float32; None is `bf16` on a GPU. What is trained is kept in float32 either way."""
    gradient_checkpointing: bool = True
    """Compute activations again in the backward pass: a third more time, far less memory."""
    device: str | None = None
    """`cpu` stays off a GPU that is there."""
    seed: int = 0
    """Of the adapters' beginning, the order, and dropout where the student has any."""

    log_every: int = 10
    """Steps between two lines of progress."""
    checkpoint_every: int = 250
    """Steps between checkpoints; 0 is one at the end alone."""
    keep_checkpoints: int = 2
    """Older ones are deleted."""
    validation_every: int = 250
    """Steps between two losses on held-out pictures."""
    validation_images: int = 256
    """Scores are of at most so many of the held-out pictures, evenly picked."""

    MAY_CHANGE: ClassVar[frozenset[str]] = frozenset(
        {"output_dir", "max_steps", "log_every", "checkpoint_every", "keep_checkpoints", "validation_every", "device"}
    )
    """What a resumed run may have otherwise: it decides when the run ends and what is shown, not what is computed."""
    BEFORE: ClassVar[Mapping[str, Any]] = {}
    """What a checkpoint that is older than an option was trained with."""

    def __post_init__(self) -> None:
        for name, low in _WHOLE.items():
            value = getattr(self, name)
            if name == "n" and value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int) or value < low:
                raise _wrong(name, value, f"a whole number, {low} or more")
        if not (self.lora_alpha is None or is_alpha(self.lora_alpha)):
            raise _wrong("lora_alpha", self.lora_alpha, "a number above 0: adapters scaled by 0 learn nothing")
        for name in ("learning_rate", "weight_decay", "max_grad_norm"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
                raise _wrong(name, value, "a number, 0 or more (YAML reads 1e-4 as text: write 1.0e-4)")
        if self.method not in get_args(Method):
            raise _wrong("method", self.method, "lora or full")
        if self.mixed_precision not in (None, *get_args(Precision)):
            raise _wrong("mixed_precision", self.mixed_precision, "bf16 or no")
        if self.device not in (None, "cpu"):
            raise _wrong("device", self.device, "cpu, or nothing for the GPUs that are there")
        if not isinstance(self.gradient_checkpointing, bool):
            raise _wrong("gradient_checkpointing", self.gradient_checkpointing, "true or false")
        for name in ("student", "output_dir", "lr_scheduler", "revision", "class_word"):
            value = getattr(self, name)
            if value is None and name in ("revision", "class_word"):
                continue
            if not isinstance(value, str) or not value:
                raise _wrong(name, value, "a text")
        if self.lora_targets is not None and not _texts(self.lora_targets):
            raise _wrong("lora_targets", self.lora_targets, "a list of texts")
        if not (isinstance(self.preset, str) or _texts(self.preset)) or not self.preset:
            raise _wrong("preset", self.preset, "the name of a preset, or a list of them")
        teacher = self.teacher
        if teacher != "dataset" and not (isinstance(teacher, Mapping) and isinstance(teacher.get("backend"), str)):
            raise _wrong("teacher", teacher, "'dataset', or a mapping such as {backend: http, url: …, model: …}")

    @property
    def presets(self) -> tuple[str, ...]:
        """The presets' names, whether one or several were given."""
        return (self.preset,) if isinstance(self.preset, str) else tuple(self.preset)

    @classmethod
    def of(cls, section: Mapping[str, Any]) -> Self:
        """The options of a config's section.

        Raises:
            ConfigError: One is unknown (names the nearest) or has no effect beside the others, or there is no student.
        """
        known = cls.names()
        for key in section:
            if key not in known:
                raise unknown_key("distill", str(key), known)
        if section.get("student") is None:
            raise ConfigError(
                "distill.student: the model that is to learn was expected: a folder, or a name on the hub such as "
                "HuggingFaceTB/SmolVLM-500M-Instruct"
            )
        options = cls(**{k: value for k, value in section.items() if not (value is None and k in _LORA_OPTIONS)})
        rules = recipe_rules(section, lora=_LORA_OPTIONS, schedule=_SCHEDULE)
        teacher = section.get("teacher") or "dataset"
        rules.append((("n",), teacher == "dataset", "with teacher: dataset, which has the captions that are there"))
        check_effects("distill", section, rules)
        return options

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """What the options are called."""
        return tuple(field.name for field in fields(cls))


_WHOLE: Final = {
    "n": 1,
    "pixels": 1,
    "max_tokens": 1,
    "max_steps": 1,
    "batch_size": 1,
    "gradient_accumulation_steps": 1,
    "lora_rank": 1,
    "log_every": 1,
    "keep_checkpoints": 1,
    "validation_every": 1,
    "validation_images": 1,
    "lr_warmup_steps": 0,
    "checkpoint_every": 0,
    "seed": 0,
}
"""The options that are whole numbers, and their least values."""


def _texts(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(one, str) for one in value)


def _wrong(name: str, value: Any, expected: str) -> ConfigError:
    return ConfigError(f"distill.{name}: found {value!r}, expected {expected}")
