"""Colour management: pixels of any embedded ICC profile → sRGB, one compiled transform per profile."""

from __future__ import annotations

import hashlib
import io
from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageCms

from calotype.images.locks import ForkSafeLock

__all__ = ["SRGB", "Conversion", "colour_space", "conversion", "profile_name", "to_srgb"]

SRGB = "sRGB"
"""`Conversion.name` of nothing to do."""

_PIXELS_OF = {b"RGB ": "RGB", b"GRAY": "L", b"CMYK": "CMYK"}
_MOST = 256  # compiled transforms kept; a data set has a handful of profiles, a crawl a few hundred


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversion:
    """What is to be done with the pixels of one profile."""

    name: str
    """`description`, or `SRGB` when it changes no colour."""
    transform: ImageCms.ImageCmsTransform | None
    """To sRGB; None when there is nothing to do, or nothing that can be done."""
    takes: str
    """Pillow's mode of the pixels that `transform` reads: RGB, L or CMYK."""
    description: str
    """The profile's own, also where it changes no colour."""
    problem: str = ""
    """Why the profile could not be used; the colours are then taken as sRGB."""


_lock = ForkSafeLock()
_conversions: OrderedDict[bytes, Conversion] = OrderedDict()


def conversion(icc: bytes) -> Conversion:
    """The compiled conversion of a profile; remembered, safe from any thread.

    Little CMS transforms are read-only once built (each call works on its own copy of the one-pixel cache), so threads
    share them; building is behind a lock.
    """
    key = hashlib.sha256(icc).digest()
    with _lock:
        known = _conversions.get(key)
        if known is None:
            known = _conversions[key] = _compile(icc)
            if len(_conversions) > _MOST:
                _conversions.popitem(last=False)
        else:
            _conversions.move_to_end(key)
        return known


def _compile(icc: bytes) -> Conversion:
    """Perceptual intent: for matrix profiles it equals relative colorimetric; for tables it is what viewers use."""
    takes = _PIXELS_OF.get(icc[16:20], "")
    name = "unreadable profile"
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
        name = ImageCms.getProfileDescription(profile).strip() or "unnamed profile"
        if not takes:
            return _unusable(name, takes, _wrong_space(icc))
        transform = ImageCms.buildTransform(
            profile, ImageCms.createProfile("sRGB"), takes, "RGB", ImageCms.Intent.PERCEPTUAL
        )
        if takes != "CMYK" and _changes_nothing(transform, takes):
            return Conversion(name=SRGB, transform=None, takes=takes, description=name)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError, SyntaxError, MemoryError) as error:
        return _unusable(name, takes, f"it can't be read ({error})")
    return Conversion(name=name, transform=transform, takes=takes, description=name)


def _unusable(description: str, takes: str, problem: str) -> Conversion:
    return Conversion(name="unusable", transform=None, takes=takes, description=description, problem=problem)


def _wrong_space(icc: bytes) -> str:
    return f"its colour space is {icc[16:20].decode('ascii', 'replace').strip()!r}"


def _changes_nothing(transform: ImageCms.ImageCmsTransform, mode: str) -> bool:
    """True when no colour of a probe moves by more than one level: judged by what a profile does, not by its name."""
    levels = np.linspace(0, 255, 18).round().astype(np.uint8)
    if mode == "RGB":
        probe = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(18, -1, 3)
    else:
        probe = np.arange(256, dtype=np.uint8)[None]
    image = Image.fromarray(np.ascontiguousarray(probe))
    after = np.asarray(ImageCms.applyTransform(image, transform))
    return int(np.abs(after.astype(np.int16) - np.asarray(image.convert("RGB")).astype(np.int16)).max()) <= 1


def to_srgb(image: Image.Image, icc: bytes) -> tuple[Image.Image, str | None]:
    """An image of mode L, RGB or CMYK → mode RGB in sRGB, and a note when that was not a plain matter.

    A profile that contradicts the pixels (RGB for CMYK, say) or can't be read is passed over, and the note says so;
    an RGB profile on a grey image is common and means what it says.
    """
    found = conversion(icc)
    if found.problem:
        return image.convert("RGB"), f"icc: profile ignored, {found.problem}"
    if found.takes == "RGB" and image.mode == "L":
        image = image.convert("RGB")
    if found.takes != image.mode:
        return image.convert("RGB"), f"icc: profile ignored, it is for {found.takes} and the pixels are {image.mode}"
    if found.transform is None:
        return image.convert("RGB"), None
    converted = ImageCms.applyTransform(image, found.transform)
    assert converted is not None  # only with inPlace
    return converted, f"icc: {found.name} to sRGB"


def profile_name(icc: bytes) -> str:
    """The profile's description, for a person; a profile that can't be read has one that says so."""
    return conversion(icc).description


def colour_space(icc: bytes, mode: str) -> str | None:
    """The name of what `to_srgb` converts from; None when it changes no colour or passes the profile over.

    Args:
        icc: The profile.
        mode: Pillow's name of the colours as stored.
    """
    found = conversion(icc)
    pixels = "CMYK" if mode == "CMYK" else "L" if mode.startswith(("L", "I;16")) else "RGB"
    fits = found.takes == pixels or (found.takes == "RGB" and pixels == "L")
    return found.name if fits and found.transform is not None else None
