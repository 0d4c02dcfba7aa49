"""`ImageTransformConfig`: how an image is cropped, resized, flipped, rotated and colored."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, WithJsonSchema, model_validator

from calotype.config.errors import OptionError
from calotype.config.expected import Expected
from calotype.config.section import Count, Section

__all__ = ["ColorJitterConfig", "ImageTransformConfig", "RandomCropConfig"]


def _rising(pair: Sequence[float]) -> Sequence[float]:
    if pair[0] > pair[1]:
        raise ValueError("the smaller first")
    return pair


Two = Field(min_length=2, max_length=2)
Probability = Annotated[
    Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] | bool,
    Expected("a probability from 0 to 1, such as 0.5; true is 0.5"),
]
Size = Annotated[
    Count | Annotated[Sequence[Count], Two],
    Expected("one number or [height, width] in pixels, such as 1024 or [1024, 768]"),
]
Part = Annotated[float, Field(gt=0, le=1)]
Scale = Annotated[
    Sequence[Part],
    Two,
    AfterValidator(_rising),
    Expected("two parts of the area above 0 and up to 1, the smaller first, such as [0.8, 1.0]"),
]
Degrees = Annotated[float, Field(ge=-180, le=180)]
Rotation = Annotated[
    Annotated[float, Field(ge=0, le=180)] | Annotated[Sequence[Degrees], Two, AfterValidator(_rising)] | Literal[False],
    Expected("degrees from 0 to 180, such as 5, or [min, max] from -180 to 180, the smaller first"),
]
Factor = Annotated[float, Field(ge=0, le=1e6)]
Factors = Annotated[
    Annotated[float, Field(ge=0, le=1e6 - 1)] | Annotated[Sequence[Factor], Two, AfterValidator(_rising)],
    Expected("0 to 999999, such as 0.1, or [min, max] of the factor, such as [0.9, 1.1]"),
]
Turn = Annotated[float, Field(ge=-0.5, le=0.5)]
Turns = Annotated[
    Annotated[float, Field(ge=0, le=0.5)] | Annotated[Sequence[Turn], Two, AfterValidator(_rising)],
    Expected("0 to 0.5, such as 0.05, or [min, max] of the shift, such as [-0.05, 0.05]"),
]
Steps = Annotated[
    Any,
    Expected("a callable on images, a `_component_` mapping, or a list of those"),
    WithJsonSchema({"anyOf": [{"type": "object"}, {"type": "array", "items": {"type": "object"}}]}),
]


class RandomCropConfig(Section):
    """Where a random crop is taken, and how large it is."""

    scale: Scale = (1.0, 1.0)
    """The crop's area, sampled between these two parts of the largest area that fits."""


class ColorJitterConfig(Section):
    """Random changes of color, as `torchvision.transforms.v2.ColorJitter` takes them."""

    brightness: Factors | None = None
    """0.2 is a factor from 0.8 to 1.2; [min, max] gives it."""
    contrast: Factors | None = None
    """As `brightness`."""
    saturation: Factors | None = None
    """As `brightness`."""
    hue: Turns | None = None
    """0.05 is a shift from -0.05 to 0.05 turns of the color wheel; [min, max] gives it."""


class ImageTransformConfig(Section):
    """Options of `calotype.ImageTransform`."""

    example: ClassVar[str] = "horizontal_flip: 0.5"

    resize: Size | None = None
    """One size for all images, in place of buckets. A pair without a crop stretches; with a crop it scales to cover.
    One number is the shorter side; with a crop, the side of a square."""
    center_crop: bool = False
    """Keep the middle; buckets do so anyway."""
    random_crop: Annotated[
        bool | RandomCropConfig, Expected("true, false, or a mapping such as {scale: [0.8, 1.0]}")
    ] = False
    """Keep a random part, as large as the target's aspect ratio allows; or options of it."""
    horizontal_flip: Probability = 0.0
    """Probability of a flip; true is 0.5."""
    vertical_flip: Probability = 0.0
    """Probability of a flip; true is 0.5."""
    color_jitter: (
        Annotated[ColorJitterConfig, Expected("a mapping such as {brightness: 0.1, contrast: 0.1}")] | None
    ) = None
    """Random changes of color."""
    rotate: Rotation | None = None
    """Up to so many degrees either way, or [min, max], counter-clockwise. No empty corner shows: the crop shrinks."""
    interpolation: Literal["lanczos", "bicubic", "bilinear"] = "lanczos"
    """Filter of the resize, antialiased."""
    custom: Steps = ()
    """Transforms of your own on uint8 (3, H, W) tensors or Pillow images, run last."""

    @property
    def non_enumerable(self) -> bool:
        """Whether it has outcomes that can't be listed: those that `encodings.image_variants` is for."""
        rotates = self.rotate[0] != self.rotate[1] if isinstance(self.rotate, Sequence) else bool(self.rotate)
        jitters = self.color_jitter is not None and any(one is not None for one in self.color_jitter.given().values())
        return bool(self.random_crop) or rotates or jitters or self.custom not in ((), [], None)

    @property
    def fixed_geometry(self) -> bool:
        """Whether each image has the same crop in every epoch."""
        rotates = any(self.rotate) if isinstance(self.rotate, Sequence) else bool(self.rotate)
        return not self.random_crop and not rotates

    @model_validator(mode="after")
    def _one_crop(self) -> Self:
        if self.center_crop and self.random_crop:
            raise OptionError("center_crop, random_crop", "found both, expected one: a crop is in the middle or random")
        return self
