"""The prompts of each image, rendered from presets, and the keys of their results in the ledger."""

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

_NO_IMAGE: Final = Image.new("RGB", (1, 1))
"""Placeholder of a request whose image has not been read."""
_TRIGGER: Final = r"\{ *trigger *\}"
_PLACEHOLDER: Final = re.compile(rf"""(?i)"{_TRIGGER}"|“{_TRIGGER}”|`{_TRIGGER}`|\*+{_TRIGGER}\*+|{_TRIGGER}""")


@dataclass(frozen=True, kw_only=True, slots=True)
class BackendIdentity:
    """The properties of a backend that a caption depends on; part of every key in the ledger."""

    backend: str
    model: str
    parameters: Mapping[str, Any]
    pixels: int
    """Larger images are downscaled to this number of pixels."""

    @classmethod
    def of(cls, backend: CaptionBackend, pixels: int) -> BackendIdentity:
        """Return the identity of an open backend."""
        return cls(backend=backend.name, model=backend.model, parameters=dict(backend.parameters), pixels=pixels)


@dataclass(frozen=True, kw_only=True, slots=True)
class CaptionVariant:
    """One of the K captions of an image: a preset and a seed."""

    preset: CaptionPreset
    seed: int


def plan_variants(presets: Sequence[CaptionPreset], count: int | None, seed: int) -> list[CaptionVariant]:
    """Return the K captions of an image: each preset once, then each once more with the next seed, and so on.

    Args:
        presets: At least one.
        count: K. Default: the number of presets.
        seed: Seed of the first caption of each preset.

    Raises:
        ConfigError: There are fewer captions than presets, or a preset is listed twice.
    """
    count = len(presets) if count is None else count
    if not presets or count < len(presets):
        raise ConfigError(f"n: found {count}, and {len(presets)} presets; expected at least one caption per preset")
    prompts = [(preset.template, preset.system, preset.task, preset.defaults) for preset in presets]
    for index, preset in enumerate(presets):
        if prompts.index(prompts[index]) < index:
            raise ConfigError(
                f"presets: {preset.name} is listed twice and would give the same caption twice; list it once, with n "
                "for several captions"
            )
    return [CaptionVariant(preset=presets[i % len(presets)], seed=seed + i // len(presets)) for i in range(count)]


def check_class_word(presets: Sequence[CaptionPreset], class_word: str | None) -> None:
    """Check that a preset uses the class word.

    Raises:
        ConfigError: No preset uses it.
    """
    if class_word is not None and not any(preset.uses("class_word") for preset in presets):
        names = ", ".join(preset.name for preset in presets)
        raise ConfigError(
            f"class_word: {class_word!r} has no effect, because no prompt of {names} has {{class_word}}; leave it out, "
            "or use the preset 'subject'"
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class RenderedPrompt:
    """A preset rendered for one image."""

    preset: str
    text: str
    system: str | None
    task: str | None
    seed: int
    recipe: str
    """See `LedgerEntry.recipe`."""
    known: str | None = None
    """Its result, if the prompt quotes the image's caption and that caption already is this result."""
    error: str | None = None
    """Why it can't be rendered."""

    def key(self, image_hash: str) -> str:
        """Return the key of its result in the ledger."""
        return _hash([image_hash, self.recipe, self.text, self.system, self.task, self.seed])

    def entry(self, identity: BackendIdentity, id: str, image_hash: str, **result: Any) -> LedgerEntry:
        """Return a ledger entry with its result."""
        return LedgerEntry(
            key=self.key(image_hash),
            picture=image_hash,
            recipe=self.recipe,
            id=id,
            backend=identity.backend,
            model=identity.model,
            preset=self.preset,
            seed=self.seed,
            **result,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class ImagePrompts:
    """All prompts of one image."""

    id: str
    ref: ImageRef
    prompts: tuple[RenderedPrompt, ...]


def render_prompt(
    variant: CaptionVariant,
    variables: Mapping[str, str | None],
    identity: BackendIdentity,
    *,
    entries: Sequence[LedgerEntry],
    current: Sequence[str],
) -> RenderedPrompt:
    """Render a preset for one image.

    Args:
        variant: The preset and the seed.
        variables: Variables of the image, from `prompt_variables`.
        identity: The backend that the prompt is for.
        entries: The captions of this image in the ledger.
        current: The image's current captions.

    Raises:
        ConfigError: The preset uses a variable that no image has a value for.
    """
    # The recipe depends on backend and preset, not on the image or the seed.
    preset = variant.preset
    rendered = (
        preset.template,
        preset.system,
        preset.task,
        sorted(preset.defaults.items()),
        variables.get("class_word"),
    )
    recipe = _hash([identity.backend, identity.model, identity.parameters, identity.pixels, *rendered])
    known = error = None
    if "caption" in preset.variables:  # its result may have become the caption, which must not be refined again
        own = (entry.text for entry in entries if (entry.recipe, entry.seed) == (recipe, variant.seed))
        known = next((text for text in own if text in current), None)
    missing = [name for name in ("caption", "tags") if name in preset.variables and not variables.get(name)]
    missing = [name for name in missing if name not in preset.defaults]
    request = None
    if missing:
        error = f"the preset {preset.name!r} uses {{{missing[0]}}}, and the image has no {missing[0]}"
    else:
        request = preset.request(_NO_IMAGE, variables, seed=variant.seed)
    return RenderedPrompt(
        preset=preset.name,
        text=request.prompt if request is not None else "",
        system=request.system if request is not None else None,
        task=preset.task,
        seed=variant.seed,
        recipe=recipe,
        known=known,
        error=error,
    )


def prompt_variables(row: Row, class_word: str | None) -> dict[str, str | None]:
    """Return the variables of a preset for one image.

    The trigger is always the placeholder `{trigger}`, which the caption transform fills in on loading.
    """
    name = row.image.name if row.image.url is None else urlsplit(row.image.url).path
    path = PurePosixPath(name.rpartition("!")[2])
    folder = path.parent.name or (PurePosixPath(row.image.path).parent.name if row.image.path else "")
    tags = row.extra.get("tags")
    if isinstance(tags, list | tuple):
        tags = ", ".join(map(str, tags))
    return {
        "trigger": PLACEHOLDER,
        "class_word": class_word,
        "stem": path.stem,
        "folder": folder or None,
        "caption": next((text for text in row.captions if text.strip()), None),
        "tags": str(tags) if tags else None,
    }


def tidy(text: str) -> str:
    """Return a caption with normalised placeholders: models quote names, or capitalise them."""
    return _PLACEHOLDER.sub(PLACEHOLDER, text)


def _hash(parts: Sequence[Any]) -> str:
    text = json.dumps(parts, sort_keys=True, ensure_ascii=True, default=str)
    return xxhash.xxh3_128_hexdigest(text.encode())
