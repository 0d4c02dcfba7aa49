"""`CaptionTransform`: choose a caption, drop and shuffle its parts, add the trigger word and a template."""

from __future__ import annotations

import copy
import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import xxhash

from calotype.config.caption_transform import CaptionTransformConfig
from calotype.config.instantiate import COMPONENT, build
from calotype.config.section import plain
from calotype.core.lazy import exports
from calotype.core.placeholders import PLACEHOLDER, fill_placeholders, has_placeholder, has_trigger
from calotype.core.rng import Stream, Variant, generator
from calotype.errors import ConfigError
from calotype.transforms.options import as_list, build_list, make_transform, split_list
from calotype.types import SampleKey

__all__ = ["CaptionDraw", "CaptionTransform", "Part"]

__getattr__ = exports(__name__, {"CaptionTransform": __name__}, former={"CaptionProgram": "CaptionTransform"})


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a caption and what the transform did with it."""

    text: str
    state: Literal["kept", "dropped", "moved", "added"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptionDraw:
    """A caption that a transform made, and how."""

    text: str
    """Input of the tokenizer."""

    raw: str
    """The caption in the data that it was made from."""

    choice: int
    """Index of `raw` in the image's captions."""

    parts: tuple[Part, ...]
    """All parts in reading order, the dropped ones in their former positions."""

    dropped: bool
    """Whether the whole caption was dropped (classifier-free guidance): then `text` is empty."""


class CaptionTransform:
    """Turns the captions of an image into the text of a sample. Without options, text passes through byte for byte.

    Steps in order: choose a caption; drop and shuffle its parts and join them; replace `{trigger}`; custom callables;
    template or trigger; drop the whole caption. All randomness follows from (seed, key), and each option has random
    numbers of its own: turning one on does not change another's, and a higher `drop` keeps the captions dropped before.

    Args:
        drop: Probability in [0, 1] of an empty text, for classifier-free guidance. `true` is an error.
        shuffle_parts: Probability in [0, 1] that the parts of a caption are shuffled; `true` is 1.
        drop_parts: Probability in [0, 1] that a part is dropped, for each part. At least one part remains: only `drop`
            makes empty texts.
        keep_parts: Number of leading parts that are neither dropped nor moved.
        separator: Text between parts. When a part was dropped or moved, parts are joined by it and one space.
        choose: Which of several captions: `random`, `first`, `longest` (in characters, the first on a tie), or a list
            of weights by position; captions beyond the list have weight 0.
        trigger: Word that the model learns. It replaces `{trigger}` in captions (or `[trigger]`, `<trigger>`, …).
            Without a template it precedes captions that have no placeholder: `trigger, caption`.
        template: Text with `{caption}` once and, if a trigger is set, `{trigger}`. Spaces and separators at the ends
            are stripped around an empty caption.
        repeat_trigger: Whether to add the trigger to captions that contain it already, as a whole word in any case.
            By default these get the template without `{trigger}` and the separator after it.
        custom: Callables str → str. An argument named `rng` receives a `numpy.random.Generator`; other randomness is
            not reproducible.

    Raises:
        ConfigError: A value is out of range, or `template` and `trigger` contradict each other.
    """

    def __init__(
        self,
        *,
        drop: float = 0.0,
        shuffle_parts: float | bool = 0.0,
        drop_parts: float = 0.0,
        keep_parts: int = 0,
        separator: str = ",",
        choose: str | Sequence[float] = "random",
        trigger: str | None = None,
        template: str | None = None,
        repeat_trigger: bool = False,
        custom: Callable[..., str] | Sequence[Callable[..., str]] = (),
    ) -> None:
        options = CaptionTransformConfig.of(
            {
                "drop": drop,
                "shuffle_parts": shuffle_parts,
                "drop_parts": drop_parts,
                "keep_parts": keep_parts,
                "separator": separator,
                "choose": choose,
                "trigger": trigger,
                "template": template,
                "repeat_trigger": repeat_trigger,
            }
        )
        self.drop = float(options.drop)
        self.shuffle_parts = float(options.shuffle_parts)
        self.drop_parts = float(options.drop_parts)
        self.keep_parts = options.keep_parts
        self.separator = options.separator
        self.choose = options.choose if isinstance(options.choose, str) else tuple(map(float, options.choose))
        self.trigger = options.trigger
        self.template = _template(options.template, self.trigger)
        self.repeat_trigger = options.repeat_trigger
        self._bare_template = self.template if self.template is None else _without_trigger(self.template, separator)
        self.custom = _callables(custom)

    def __repr__(self) -> str:
        options = {
            "drop": self.drop,
            "shuffle_parts": self.shuffle_parts,
            "drop_parts": self.drop_parts,
            "keep_parts": self.keep_parts,
            "choose": self.choose if self.choose != "random" else None,
            "trigger": self.trigger,
            "template": self.template if self.template != _template(None, self.trigger) else None,
            "custom": list(self.custom),
        }
        return f"CaptionTransform({', '.join(f'{name}={value!r}' for name, value in options.items() if value)})"

    @classmethod
    def from_config(cls, config: Any, *, where: str = "caption_transform") -> CaptionTransform:
        """Make the transform that an option describes.

        Args:
            config: None, a transform, its options (typed or as a mapping), a `{_component_: …}` mapping, a callable
                str → str, or a list whose first item may be a mapping of options and whose others are callables.
            where: The option's name, for messages.

        Raises:
            ConfigError: Anything else, or a wrong option.
        """
        if config is None:
            return cls()
        if isinstance(config, CaptionTransform):
            return config
        if isinstance(config, Mapping) and COMPONENT not in config:
            config = CaptionTransformConfig.of(config, where=where)
        if isinstance(config, CaptionTransformConfig):
            return make_transform(cls, config, config.custom, (), where=where)
        if isinstance(config, Sequence) and not isinstance(config, str):
            options, steps, first = split_list(config)
            known = CaptionTransformConfig.of(options, where=f"{where}[0]")
            return make_transform(cls, known, known.custom, build_list(steps, where=where, first=first), where=where)
        built = build(plain(config), where=where)
        if isinstance(built, CaptionTransform):
            return built
        if callable(built):
            return cls(custom=built)
        raise ConfigError(
            f"{where}: found {config!r}, expected a mapping of options "
            f"({', '.join(sorted(CaptionTransformConfig.names()))}), a {COMPONENT} mapping, or a callable from text "
            "to text"
        )

    def __call__(self, captions: Sequence[str], key: SampleKey, seed: int) -> str:
        """Return the text of `draw`."""
        return self.draw(captions, key, seed).text

    @property
    def non_enumerable(self) -> tuple[str, ...]:
        """The options with too many outcomes to enumerate, or with randomness in callables."""
        found = {
            "shuffle_parts": self.shuffle_parts > 0.0,
            "drop_parts": self.drop_parts > 0.0,
            "custom": any(map(_takes_rng, self.custom)),
        }
        return tuple(name for name, there in found.items() if there)

    def draw(self, captions: Sequence[str], key: SampleKey, seed: int, *, variants: int | None = None) -> CaptionDraw:
        """Return the caption of one sample and how it was made: a pure function of the arguments.

        Args:
            captions: All captions of the row.
            key: The sample's key.
            seed: The dataset's seed.
            variants: Restrict the text to those that `outcomes` enumerates for this number. The choice, whether it is
                dropped and whether it is shuffled are the same as without it.
        """
        rng = generator(seed, key, Stream.CAPTION)
        # A constant number of draws comes first, whatever the caption.
        choice_draw, drop_draw, shuffle_draw, custom_draw = rng.random(4).tolist()
        choice = self._choice(captions, choice_draw)
        shuffled = shuffle_draw < self.shuffle_parts
        if variants is not None and self.non_enumerable:
            raw = captions[choice] if captions else ""
            variant = Variant.sampled(_content(raw), variants, key, seed, Stream.CAPTION_VARIANT)
            rng, custom_draw = _variant_draws(variant)
        made = self._make(captions, choice, rng, custom_draw, shuffled=shuffled)
        if drop_draw >= self.drop:
            return made
        dropped = tuple(Part(part.text, "dropped") for part in made.parts)
        return replace(made, text="", parts=dropped, dropped=True)

    def fixed(self, captions: Sequence[str]) -> bool:
        """Whether `draw` returns the same text for these captions with every key."""
        return self.drop == 0.0 and not self.non_enumerable and len(self._choices(captions)) == 1

    def outcomes(self, captions: Sequence[str], *, variants: int) -> dict[str, float]:
        """Return every text that `draw(…, variants=variants)` can return, and its probability.

        Args:
            captions: All captions of the row.
            variants: Samples taken for each caption in place of the options in `non_enumerable`.
        """
        found: dict[str, float] = {}
        for choice, chance in self._choices(captions):
            for shuffled, share in ((False, 1.0 - self.shuffle_parts), (True, self.shuffle_parts)):
                sampled = shuffled or self.drop_parts > 0.0 or any(map(_takes_rng, self.custom))
                count = variants if sampled else 1
                for number in range(count if share > 0.0 else 0):
                    content = _content(captions[choice]) if captions else _content("")
                    rng, custom_draw = _variant_draws(Variant(content, number))
                    text = self._make(captions, choice, rng, custom_draw, shuffled=shuffled).text
                    found[text] = found.get(text, 0.0) + (1.0 - self.drop) * chance * share / count
        if self.drop > 0.0:
            found[""] = found.get("", 0.0) + self.drop
        return found

    def _make(
        self, captions: Sequence[str], choice: int, rng: np.random.Generator, custom_draw: float, *, shuffled: bool
    ) -> CaptionDraw:
        raw = captions[choice] if captions else ""
        text, parts = self._parts(raw, rng, shuffled=shuffled)
        placed = self.trigger is not None and has_placeholder(text)
        if placed:
            text = self._fill(text)
            parts = [replace(part, text=self._fill(part.text)) for part in parts]
        for position, step in enumerate(self.custom):
            changed = _call(step, text, np.random.Generator(np.random.Philox([int(custom_draw * 2**53), position])))
            if changed != text:
                text, parts = changed, [Part(changed, "added")]
        template = self.template
        if self.trigger is not None and not self.repeat_trigger and (placed or has_trigger(text, self.trigger)):
            template = self._bare_template
        text, parts = self._surround(template, text, parts)
        return CaptionDraw(text=text, raw=raw, choice=choice, parts=tuple(parts), dropped=False)

    def _fill(self, text: str) -> str:
        return text if self.trigger is None else fill_placeholders(text, self.trigger)

    def without_dropping(self) -> CaptionTransform:
        """Return this transform with nothing dropped or shuffled: its texts have their greatest length."""
        transform = copy.copy(self)
        transform.drop = transform.drop_parts = transform.shuffle_parts = 0.0
        return transform

    def _choice(self, captions: Sequence[str], draw: float) -> int:
        choices = self._choices(captions)
        if len(choices) == 1:
            return choices[0][0]
        borders = np.cumsum([chance for _, chance in choices])
        return choices[int(np.searchsorted(borders, draw * borders[-1], side="right"))][0]

    def _choices(self, captions: Sequence[str]) -> list[tuple[int, float]]:
        """Return the captions that can be chosen and their probabilities, which sum to 1."""
        if len(captions) < 2 or self.choose == "first":
            return [(0, 1.0)]
        if self.choose == "longest":
            return [(max(range(len(captions)), key=lambda i: (len(captions[i]), -i)), 1.0)]
        weights = [1.0] * len(captions)
        if not isinstance(self.choose, str):
            given = [*self.choose[: len(captions)], *[0.0] * (len(captions) - len(self.choose))]
            weights = given if sum(given) > 0 else weights
        return [(i, weight / sum(weights)) for i, weight in enumerate(weights) if weight > 0.0]

    def _parts(self, raw: str, rng: np.random.Generator, *, shuffled: bool) -> tuple[str, list[Part]]:
        texts = [part.strip() for part in raw.split(self.separator)]
        texts = [part for part in texts if part]
        if not shuffled and not self.drop_parts:
            return raw, [Part(part, "kept") for part in texts]
        # Two random numbers a part, so that dropping some does not change the order of the others.
        drop_draws, order_draws = rng.random((2, len(texts)))
        free = range(min(self.keep_parts, len(texts)), len(texts))
        dropped = {i for i in free if drop_draws[i] < self.drop_parts}
        if texts and len(dropped) == len(texts):
            dropped.remove(int(drop_draws.argmax()))
        staying = [i for i in free if i not in dropped]
        order = sorted(staying, key=lambda i: order_draws[i]) if shuffled else staying
        if not dropped and order == staying:
            return raw, [Part(part, "kept") for part in texts]
        shown = [Part(part, "kept") for part in texts]
        for i in dropped:
            shown[i] = Part(texts[i], "dropped")
        for slot, i in zip(staying, order, strict=True):
            shown[slot] = Part(texts[i], "kept" if slot == i else "moved")
        glue = self.separator if self.separator[-1].isspace() else f"{self.separator} "
        return glue.join(part.text for part in shown if part.state != "dropped"), shown

    def _surround(self, template: str | None, caption: str, parts: list[Part]) -> tuple[str, list[Part]]:
        if template is None:
            return caption, parts
        # Concatenated and not formatted: captions and triggers may contain braces.
        before, after = map(self._fill, template.split("{caption}"))
        if not caption.strip():
            dangling = f" \t\n{self.separator}"
            before = f"{before}{after}".strip(dangling)
            return before, [Part(before, "added")]
        added = [Part(piece, "added") if piece else None for piece in (before, after)]
        shown = [added[0], *parts, added[1]]
        return f"{before}{caption}{after}", [part for part in shown if part is not None]


def _content(caption: str) -> int:
    return xxhash.xxh3_64_intdigest(caption.encode("utf-8", "surrogatepass"))


def _variant_draws(variant: Variant) -> tuple[np.random.Generator, float]:
    rng = variant.generator(Stream.CAPTION)
    return rng, float(rng.random())


def _template(template: str | None, trigger: str | None) -> str | None:
    if template is None:
        return None if trigger is None else f"{PLACEHOLDER}, {{caption}}"
    return fill_placeholders(template, PLACEHOLDER)


def _without_trigger(template: str, separator: str) -> str:
    """Return the template without the trigger and the separator after it, for captions that contain the trigger."""
    glue = re.escape(separator.strip() or separator)
    bare = re.sub(rf"{re.escape(PLACEHOLDER)}(?:\s*(?:{glue}|[,;:]))?\s*", "", template)
    dangling = f" \t\n{separator}"
    return bare.strip(dangling)


def _callables(custom: Any) -> tuple[Callable[..., str], ...]:
    steps = tuple(as_list(custom)) if custom is not None else ()
    for step in steps:
        if not callable(step):
            raise ConfigError(f"custom: found {step!r}, expected a callable from text to text")
    return steps


def _call(step: Callable[..., str], text: str, rng: np.random.Generator) -> str:
    result = step(text, rng=rng) if _takes_rng(step) else step(text)
    if not isinstance(result, str):
        raise ConfigError(
            f"custom: {step!r} returned {type(result).__name__} for the caption {text!r}; expected a text"
        )
    return result


def _takes_rng(step: Callable[..., str]) -> bool:
    try:
        return "rng" in inspect.signature(step).parameters
    except (TypeError, ValueError):
        return False
