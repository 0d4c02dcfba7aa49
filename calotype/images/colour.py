"""Color management: convert pixels with an embedded ICC profile to sRGB, one compiled transform per profile."""

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
"""`Conversion.name` of a profile that changes no colour."""

_PIXELS_OF = {b"RGB ": "RGB", b"GRAY": "L", b"CMYK": "CMYK"}
_MOST = 256  # cached transforms; a dataset has a handful of profiles, a crawl a few hundred


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversion:
    """How pixels with one ICC profile are converted to sRGB."""

    name: str
    """`description`, or `SRGB` when it changes no colour."""
    transform: ImageCms.ImageCmsTransform | None
    """To sRGB; None if the profile changes no colour or is unusable."""
    takes: str
    """Pillow's mode of the input: RGB, L or CMYK."""
    description: str
    """The profile's description."""
    problem: str = ""
    """Why the profile is unusable; its pixels are read as sRGB."""


_lock = ForkSafeLock()
_conversions: OrderedDict[bytes, Conversion] = OrderedDict()


def conversion(icc: bytes) -> Conversion:
    """Return the compiled conversion of a profile, from a cache. Thread-safe.

    Little CMS transforms are read-only once built (each call copies the one-pixel cache), so threads share them; a lock
    guards building.
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
    """Compile with perceptual intent: as viewers do for tables, and equal to relative colorimetric for matrices."""
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
    """Whether no colour of a test image changes by more than one level of 255."""
    levels = np.linspace(0, 255, 18).round().astype(np.uint8)
    if mode == "RGB":
        probe = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(18, -1, 3)
    else:
        probe = np.arange(256, dtype=np.uint8)[None]
    image = Image.fromarray(np.ascontiguousarray(probe))
    after = np.asarray(ImageCms.applyTransform(image, transform))
    return int(np.abs(after.astype(np.int16) - np.asarray(image.convert("RGB")).astype(np.int16)).max()) <= 1


def to_srgb(image: Image.Image, icc: bytes) -> tuple[Image.Image, str | None]:
    """Convert an image of mode L, RGB or CMYK to RGB in sRGB; return it with a note on the conversion, or None.

    A profile that is unreadable or contradicts the pixels (RGB for CMYK) is ignored with a note; an RGB profile on a
    grey image is common, and applied.
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
    """Return the profile's description, `unreadable profile` if it can't be read."""
    return conversion(icc).description


def colour_space(icc: bytes, mode: str) -> str | None:
    """Return the name of the colour space that `to_srgb` converts from; None if it changes no colour.

    Args:
        icc: The profile.
        mode: Pillow's mode of the stored pixels.
    """
    found = conversion(icc)
    pixels = "CMYK" if mode == "CMYK" else "L" if mode.startswith(("L", "I;16")) else "RGB"
    fits = found.takes == pixels or (found.takes == "RGB" and pixels == "L")
    return found.name if fits and found.transform is not None else None
