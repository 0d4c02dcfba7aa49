"""Findings about pixels: colours, transparency and bit depth, and how much an image is scaled and cropped."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from calotype.check.facts import Facts
from calotype.check.framing import Framing, framing
from calotype.check.report import Finding, finding
from calotype.data.dataset import TextToImageDataset
from calotype.images import Header

__all__ = ["pixel_findings"]

_MUCH: Final = 0.2
"""Share of an image's area above which cropping it away is reported."""
_EXTREME: Final = 4.0
"""Aspect ratio (longer side / shorter side) above which an image is reported if there are no buckets."""

_TURNS: Final = {
    2: "mirrored left to right",
    3: "turned by half",
    4: "mirrored top to bottom",
    5: "mirrored, and turned by a quarter counter-clockwise",
    6: "turned by a quarter clockwise",
    7: "mirrored, and turned by a quarter clockwise",
    8: "turned by a quarter counter-clockwise",
}
_GREYS: Final = ("L", "LA", "La", "1", "I;16", "I;16B", "I;16L", "I;16N")


def pixel_findings(dataset: TextToImageDataset, facts: Sequence[Facts], sizes: npt.NDArray[np.int32]) -> list[Finding]:
    """Return the findings of the section `pixels`, for usable images.

    Args:
        dataset: Has the buckets and the image transform.
        facts: Facts of each row.
        sizes: int32 (N, 2), (height, width) from the headers, 0 without one.
    """
    ids = dataset.manifest.ids.to_pylist()
    stated = dataset.manifest.sizes()
    found: list[Finding] = []
    for id, one, said in zip(ids, facts, stated.tolist(), strict=True):
        if one.problem is None and one.header is not None:
            found += _colours(id, one, one.header)
            found += _wrong_size(id, one.header, (said[0], said[1]))
    usable = np.flatnonzero([one.problem is None and one.header is not None for one in facts])
    if (frames := framing(dataset, usable, sizes[usable], stated[usable])) is not None:
        found += _frames(dataset, ids, usable, sizes[usable], frames)
    return found


def _colours(id: str, one: Facts, header: Header) -> Iterator[Finding]:
    decoded = one.pixels is not None
    if header.orientation != 1:
        how = _TURNS.get(header.orientation, "")
        yield finding("rotated", id, f"EXIF orientation {header.orientation}: {how}")
    if decoded:
        for note in one.notes:
            if note.startswith("alpha on "):
                yield finding("alpha", id, f"laid on rgb{note.removeprefix('alpha on ')}")
            elif note.startswith("icc: profile ignored, "):
                detail = f"its profile ({header.icc}) is not used: {note.removeprefix('icc: profile ignored, ')}"
                yield finding("colour_profile", id, detail, advice="nothing: its colours are read as sRGB")
    elif header.has_alpha:
        yield finding("alpha", id, "it may be transparent: --deep finds out")
    if header.colour_space is not None:
        yield finding("colour_profile", id, f"its pixels are in {header.colour_space}")
    if header.mode == "CMYK":
        profile = "converted by its profile" if header.colour_space else "without a profile that could be used"
        yield finding("cmyk", id, profile)
    if header.bits > 8:
        yield finding("sixteen_bit", id, f"{header.bits} bits a channel")
    if header.mode in _GREYS:
        yield finding("greyscale", id, "stored without colours")
    elif "grey" in one.notes:
        yield finding("greyscale", id, "stored with colours, and all of them are grey")


def _wrong_size(id: str, header: Header, said: tuple[int, int]) -> Iterator[Finding]:
    if min(said) <= 0 or said == header.size:
        return
    detail = f"the data file says {_size(said)}, and it is {_size(header.size)}"
    if header.orientation >= 5 and said == header.size[::-1]:
        detail += " once it is turned upright"
    yield finding("wrong_size", id, detail)


def _frames(
    dataset: TextToImageDataset,
    ids: Sequence[str],
    rows: npt.NDArray[np.intp],
    sizes: npt.NDArray[np.int32],
    frames: Framing,
) -> Iterator[Finding]:
    """Yield the findings about enlarged and cropped images."""
    buckets = dataset.buckets
    most = buckets.max_upscale if buckets is not None else 1.0
    aspects = sizes.max(axis=1) / sizes.min(axis=1)
    # Beyond the last bucket: a more extreme one would crop less.
    beyond = aspects > (buckets.max_aspect if buckets is not None else np.inf)
    average = " on average" if frames.drawn else ""
    for place in np.flatnonzero(frames.scale > most).tolist():
        detail = (
            f"{_size(sizes[place])} is enlarged {frames.scale[place]:.2f}×{average} to {_size(frames.target[place])}"
        )
        yield finding("too_small", ids[rows[place]], detail)
    cropped = frames.lost > _MUCH
    for place in np.flatnonzero(cropped).tolist():
        lost = f"{frames.lost[place]:.0%} of its area is cut away{average}, {_size(sizes[place])} for a frame of "
        lost += _size(frames.target[place])
        yield finding("extreme_aspect" if beyond[place] else "cropped", ids[rows[place]], lost)
    if buckets is None:
        for place in np.flatnonzero(~cropped & (aspects > _EXTREME)).tolist():
            detail = f"{_size(sizes[place])}: one side is {aspects[place]:.1f} times the other"
            yield finding("extreme_aspect", ids[rows[place]], detail, advice="crop it yourself")


def _size(size: Sequence[int] | npt.NDArray[np.integer]) -> str:
    return f"{size[1]}×{size[0]}"
