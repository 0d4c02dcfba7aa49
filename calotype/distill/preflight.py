"""Checks of a distillation before the teacher is called: packages, the student's files, its layers, options."""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from accelerate import init_empty_weights

from calotype.captioning.transformers_backend import captioner_identity, load_processor
from calotype.config.distill import DistillConfig
from calotype.distill.student import check_kind, make_trainable
from calotype.errors import MissingDependencyError
from calotype.models.component_check import check_component
from calotype.train.lora import trained
from calotype.train.room import tensor_bytes
from calotype.train.schedule import check_schedule

__all__ = ["STUDENT", "StudentFacts", "check_student"]


STUDENT = "distill.student"
"""The key of the student's identity in a checkpoint's state."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StudentFacts:
    """Facts about a student, without loading its weights."""

    identity: str
    """Its name with a revision or fingerprint."""
    trained_bytes: int
    """Bytes of the trained parameters, float32."""
    result_bytes: int
    """Approximate bytes of the distilled student's folder."""


def check_student(options: DistillConfig, *, scored: bool, dtype: torch.dtype) -> StudentFacts:
    """Refuse a student that can't be trained, or not with these options. No weight is loaded.

    Args:
        options: The `distill` section.
        scored: Whether images are held out for scores.
        dtype: Dtype of the distilled student.

    Raises:
        CaptionError: The student can't be found, or has no chat template.
        ConfigError: Its architecture is not supported, a file is missing or truncated, or an option does not fit it.
        MissingDependencyError: peft, sacrebleu or transformers is not installed.
    """
    for package, needed, purpose in (
        ("transformers", True, "to distill a captioner"),
        ("peft", options.method == "lora", "for LoRA"),
        ("sacrebleu", scored, "to compare captions"),
    ):
        if needed and importlib.util.find_spec(package) is None:
            raise MissingDependencyError(package, extra="distill", purpose=purpose)
    folder = Path(options.student).expanduser()
    if folder.is_dir():
        check_component(folder)
    _, config = load_processor(options.student, revision=options.revision)
    check_kind(options.student, config)
    transformers: Any = importlib.import_module("transformers")
    with init_empty_weights():  # on the meta device: layers and shapes without memory
        model = transformers.AutoModelForImageTextToText.from_config(config)
        size = sum(one.numel() for one in model.parameters()) * dtype.itemsize
        parameters = trained(make_trainable(model, options, device=torch.device("cpu")))
    check_schedule("transformers", options, section="distill")
    return StudentFacts(
        identity=captioner_identity(options.student, SimpleNamespace(config=config)),
        trained_bytes=tensor_bytes(parameters),
        result_bytes=size,
    )
