"""What is asked about each image: captions to make, by which presets; and the keys that answers are found by."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Final
from urllib.parse import urlsplit

import xxhash
from PIL import Image

from calotype.captioning.backend import CaptionBackend
from calotype.captioning.ledger import LedgerEntry
from calotype.captioning.presets import CaptionPreset
from calotype.core.placeholders import PLACEHOLDER
from calotype.errors import ConfigError
from calotype.types import ImageRef, Row

__all__ = [
    "BackendIdentity",
    "CaptionVariant",
    "ImagePrompts",
    "RenderedPrompt",
    "check_class_word",
    "plan_variants",
    "prompt_variables",
    "render_prompt",
    "tidy",
]

_NO_PICTURE: Final = Image.new("RGB", (1, 1))
"""Stands in a request until its image has been read."""
_TRIGGER: Final = r"\{ *trigger *\}"
_PLACEHOLDER: Final = re.compile(rf"""(?i)"{_TRIGGER}"|“{_TRIGGER}”|`{_TRIGGER}`|\*+{_TRIGGER}\*+|{_TRIGGER}""")


@dataclass(frozen=True, kw_only=True, slots=True)
class BackendIdentity:
    """Who is asked, and how: all of a backend that an answer depends on."""

    backend: str
    model: str
    parameters: Mapping[str, Any]
    pixels: int
    """The budget that images are made to fit."""

    @classmethod
    def of(cls, backend: CaptionBackend, pixels: int) -> BackendIdentity:
        return cls(backend=backend.name, model=backend.model, parameters=dict(backend.parameters), pixels=pixels)


@dataclass(frozen=True, kw_only=True, slots=True)
class CaptionVariant:
    """One of the K captions that each image is to get."""

    preset: CaptionPreset
    seed: int


def plan_variants(presets: Sequence[CaptionPreset], count: int | None, seed: int) -> list[CaptionVariant]:
    """The K captions of an image: each preset once, then each once more with another seed, and so on.

    Args:
        presets: At least one.
        count: K; as many as there are presets by default.
        seed: The first one's.

    Raises:
        ConfigError: There are fewer captions than presets, or a preset is listed twice.
    """
    count = len(presets) if count is None else count
    if not presets or count < len(presets):
        raise ConfigError(f"n: found {count}, and {len(presets)} presets; expected a caption for each preset at least")
    prompts = [(preset.template, preset.system, preset.task, preset.defaults) for preset in presets]
    for place, preset in enumerate(presets):
        if prompts.index(prompts[place]) < place:
            raise ConfigError(
                f"presets: {preset.name} is listed twice and would give the same caption twice; list it once, with n "
                "for several captions"
            )
    return [CaptionVariant(preset=presets[i % len(presets)], seed=seed + i // len(presets)) for i in range(count)]


def check_class_word(presets: Sequence[CaptionPreset], class_word: str | None) -> None:
    """Refuse a class word that no preset uses.

    Raises:
        ConfigError: It has no effect.
    """
    if class_word is not None and not any(preset.uses("class_word") for preset in presets):
        names = ", ".join(preset.name for preset in presets)
        raise ConfigError(
            f"class_word: {class_word!r} has no effect, because no prompt of {names} has {{class_word}}; leave it out, "
            "or use the preset 'subject'"
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class RenderedPrompt:
    """One caption that is wanted of one image."""

    preset: str
    prompt: str
    system: str | None
    task: str | None
    seed: int
    recipe: str
    """See `LedgerEntry.recipe`."""
    known: str | None = None
    """A caption that answers it already, though the prompt has changed since (it quotes that caption)."""
    error: str | None = None
    """Why it can't be asked."""

    def key(self, picture: str) -> str:
        """What its answer is found by."""
        return _hash([picture, self.recipe, self.prompt, self.system, self.task, self.seed])

    def answer(self, asker: BackendIdentity, id: str, picture: str, **outcome: Any) -> LedgerEntry:
        """An answer to it."""
        return LedgerEntry(
            key=self.key(picture),
            picture=picture,
            recipe=self.recipe,
            id=id,
            backend=asker.backend,
            model=asker.model,
            preset=self.preset,
            seed=self.seed,
            **outcome,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class ImagePrompts:
    """All questions about one image."""

    id: str
    ref: ImageRef
    questions: tuple[RenderedPrompt, ...]


def render_prompt(
    draw: CaptionVariant,
    variables: Mapping[str, str | None],
    asker: BackendIdentity,
    *,
    answered: Sequence[LedgerEntry],
    current: Sequence[str],
) -> RenderedPrompt:
    """The question that a draw is for one image.

    Args:
        draw: What is wanted.
        variables: Of the image, as `prompt_variables` gives them.
        asker: Who will be asked.
        answered: The ledger's captions of the image, as far as they are known.
        current: The captions that the image has.

    Raises:
        ConfigError: The preset uses a variable that no image has a value for.
    """
    preset = draw.preset
    asked = (preset.template, preset.system, preset.task, sorted(preset.defaults.items()), variables.get("class_word"))
    recipe = _hash([asker.backend, asker.model, asker.parameters, asker.pixels, *asked])
    known = error = None
    if "caption" in preset.variables:  # once answered, its own answer is the caption: that is not asked about again
        own = (answer.text for answer in answered if (answer.recipe, answer.seed) == (recipe, draw.seed))
        known = next((text for text in own if text in current), None)
    lacks = [name for name in ("caption", "tags") if name in preset.variables and not variables.get(name)]
    lacks = [name for name in lacks if name not in preset.defaults]
    request = None
    if lacks:
        error = f"the preset {preset.name!r} asks with its {lacks[0]}, and it has none"
    else:
        request = preset.request(_NO_PICTURE, variables, seed=draw.seed)
    return RenderedPrompt(
        preset=preset.name,
        prompt=request.prompt if request is not None else "",
        system=request.system if request is not None else None,
        task=preset.task,
        seed=draw.seed,
        recipe=recipe,
        known=known,
        error=error,
    )


def prompt_variables(row: Row, class_word: str | None) -> dict[str, str | None]:
    """What a preset may have in braces, for one image.

    The trigger is always the placeholder: the captions wait for the word, which the caption program fills in.
    """
    name = row.image.name if row.image.url is None else urlsplit(row.image.url).path
    place = PurePosixPath(name.rpartition("!")[2])
    folder = place.parent.name or (PurePosixPath(row.image.path).parent.name if row.image.path else "")
    tags = row.extra.get("tags")
    if isinstance(tags, list | tuple):
        tags = ", ".join(map(str, tags))
    return {
        "trigger": PLACEHOLDER,
        "class_word": class_word,
        "stem": place.stem,
        "folder": folder or None,
        "caption": next((text for text in row.captions if text.strip()), None),
        "tags": str(tags) if tags else None,
    }


def tidy(text: str) -> str:
    """A caption with its placeholders as the caption program knows them: models put names into quotes, or capitals."""
    return _PLACEHOLDER.sub(PLACEHOLDER, text)


def _hash(parts: Sequence[Any]) -> str:
    text = json.dumps(parts, sort_keys=True, ensure_ascii=True, default=str)
    return xxhash.xxh3_128_hexdigest(text.encode())
