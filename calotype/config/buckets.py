"""`BucketsConfig`: the sizes that images of any aspect ratio are brought to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from calotype.config.derived import Derived
from calotype.config.expected import Expected
from calotype.config.section import Count, Section

__all__ = ["BucketsConfig", "Resolution"]

Side = Annotated[int, Field(ge=1, le=16_384)]
Resolution = Annotated[
    Side | Annotated[Sequence[Side], Field(min_length=2, max_length=2)],
    Expected("one number or [height, width] in pixels, up to 16384"),
]


class BucketsConfig(Section):
    """Options of `calotype.Buckets`."""

    resolution: Annotated[Resolution | None, Derived("the dataset's")] = None
    """Side of the square whose area the buckets keep, or [height, width]."""
    multiple: Annotated[Count | None, Derived("what the model needs, at least 64 (16 below 512 pixels)")] = None
    """Every side is a multiple of this."""
    max_aspect: Annotated[float, Field(ge=1, allow_inf_nan=False), Expected("a number of at least 1, such as 2.0")] = (
        2.0
    )
    """Longest side over shortest, at most. Images beyond it are cropped."""
    max_upscale: Annotated[
        float, Field(ge=0, allow_inf_nan=False), Expected("a number of at least 0, such as 1.25")
    ] = 1.0
    """How much an image may be enlarged before it counts as too small."""
