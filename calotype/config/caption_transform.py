"""`CaptionTransformConfig`: which caption an image gets, and what becomes of its parts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, WithJsonSchema, model_validator

from calotype.config.errors import OptionError
from calotype.config.expected import Expected
from calotype.config.section import Section
from calotype.core.placeholders import PLACEHOLDER, fill_placeholders, other_placeholders

__all__ = ["CaptionTransformConfig"]


def _not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("blank")
    return text


def _not_all_zero(weights: Sequence[float]) -> Sequence[float]:
    if not sum(weights) > 0:
        raise ValueError("nothing to choose")
    return weights


Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Rate = Annotated[Share | Literal[False], Expected("how often, a probability from 0 to 1, such as 0.05")]
Probability = Annotated[Share | bool, Expected("a probability from 0 to 1, such as 0.5; true is 1")]
Parts = Annotated[int, Field(ge=0), Expected("a count of parts, 0 or more")]
Separator = Annotated[str, Field(min_length=1), Expected("a text such as ','")]
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Choice = Annotated[
    Literal["random", "first", "longest"] | Annotated[Sequence[Weight], AfterValidator(_not_all_zero)],
    Expected("'random', 'first', 'longest', or weights of 0 and above such as [3, 1]"),
]
Words = Annotated[str, AfterValidator(_not_blank), Expected("a text, or null for none")]
Steps = Annotated[
    Any,
    Expected("a callable from text to text, a `_component_` mapping, or a list of those"),
    WithJsonSchema({"anyOf": [{"type": "object"}, {"type": "array", "items": {"type": "object"}}]}),
]


class CaptionTransformConfig(Section):
    """Options of `calotype.CaptionTransform`."""

    example: ClassVar[str] = "trigger: sks"

    drop: Rate = 0.0
    """Probability that the text is empty, for classifier-free guidance."""
    shuffle_parts: Probability = 0.0
    """Probability that a caption's parts are shuffled; true is always."""
    drop_parts: Rate = 0.0
    """Probability for each part to be left out; one always stays."""
    keep_parts: Parts = 0
    """The first so many parts are neither dropped nor moved."""
    separator: Separator = ","
    """What separates parts."""
    choose: Choice = "random"
    """Which of several captions: `random`, `first`, `longest`, or weights by position."""
    trigger: Words | None = None
    """The word that the model is to learn. It stands wherever a caption has `{trigger}`, else in front."""
    template: Words | None = None
    """Text with `{caption}` and, where a trigger is set, `{trigger}` in it."""
    repeat_trigger: bool = False
    """Whether a caption that has the trigger already gets it once more."""
    custom: Steps = ()
    """Callables of your own from text to text."""

    @property
    def non_enumerable(self) -> bool:
        """Whether it may have outcomes that can't be listed: those that `encodings.caption_variants` is for."""
        return bool(self.shuffle_parts or self.drop_parts) or self.custom not in ((), [], None)

    @model_validator(mode="after")
    def _go_together(self) -> Self:
        if self.repeat_trigger and self.trigger is None:
            raise OptionError(
                "repeat_trigger", "found true and no trigger, without which it has no effect; set trigger"
            )
        if self.template is None:
            return self
        template = fill_placeholders(self.template, PLACEHOLDER)
        if others := [other for other in other_placeholders(template) if other != "{caption}"]:
            raise OptionError(
                "template",
                f"found {others[0]} of another program, expected {{caption}} where the caption stands, and {{trigger}} "
                "where the trigger does",
            )
        if template.count("{caption}") != 1:
            raise OptionError(
                "template",
                f"found {template!r}, expected {{caption}} in it once, such as 'a photo of {{trigger}}, {{caption}}'",
            )
        if self.trigger is None and PLACEHOLDER in template:
            raise OptionError("template", f"found {template!r} and no trigger; set trigger, or leave {{trigger}} out")
        if self.trigger is not None and PLACEHOLDER not in template:
            raise OptionError(
                "template", f"found {template!r}, without the trigger {self.trigger!r}; add {{trigger}} to it"
            )
        return self
