"""`ImageTransform`: crop, resize, flip, rotate and colour jitter, with randomness that follows from (seed, key)."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch

from calotype.config.img_transform import ImageTransformConfig, RandomCropConfig
from calotype.config.instantiate import COMPONENT, build
from calotype.config.section import plain
from calotype.core.lazy import exports
from calotype.core.rng import Stream, Variant, generator
from calotype.errors import ConfigError
from calotype.transforms.color import ColorJitter
from calotype.transforms.geometry import cover_box, keep_aspect, make_geometry
from calotype.transforms.options import build_list, make_transform, split_list
from calotype.transforms.resample import crop_resize, to_tensor
from calotype.transforms.steps import as_steps
from calotype.types import Geometry, SampleKey

__all__ = ["ImageOutcome", "ImageTransform"]

__getattr__ = exports(__name__, {"ImageTransform": __name__}, former={"ImageProgram": "ImageTransform"})


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageOutcome:
    """One of the finitely many results that an image can have."""

    geometry: Geometry
    variant: Variant | None
    """Seeds the crop, colours and custom steps; None where all options are enumerable."""
    probability: float


class ImageTransform:
    """Turns a decoded image, uint8 (H, W, 3), into the image of a sample, uint8 (3, h, w).

    Three stages, so that the expensive second one can be cached: `draw` samples the geometry, `resample` crops, resizes
    and rotates, `finish` flips, applies colours and runs custom steps. All randomness follows from (seed, key), and
    each option has random numbers of its own: turning one on does not change another's.

    Args:
        resize: (height, width) in pixels, or one number. A pair stretches to this size; with a crop it scales to cover
            and crops. One number is the shorter side, and the aspect ratio stays; with a crop it is the side of a
            square. A bucket's size (`SampleKey.size`) takes precedence.
        center_crop: Crop the centre.
        random_crop: Crop at a random position, as large as the target's aspect ratio allows. With
            `{"scale": [0.8, 1.0]}`, the crop has 0.8 to 1.0 of that area, at random.
        horizontal_flip: Probability in [0, 1]; `True` is 0.5.
        vertical_flip: Probability in [0, 1]; `True` is 0.5.
        color_jitter: `brightness`, `contrast`, `saturation`, `hue` → strength or [min, max], as in
            `torchvision.transforms.v2.ColorJitter`.
        rotate: Largest angle either way in degrees, or [min, max], counter-clockwise, within ±180. Corners are never
            empty: the crop moves inwards, and shrinks where the image is too small.
        interpolation: `lanczos`, `bicubic` or `bilinear`, antialiased.
        custom: Callables that take and return uint8 (3, H, W) tensors or Pillow images, such as torchvision's v2
            transforms; run last.

    Raises:
        ConfigError: A value is out of range, or options contradict each other.
    """

    def __init__(
        self,
        *,
        resize: int | Sequence[int] | None = None,
        center_crop: bool = False,
        random_crop: bool | Mapping[str, Any] = False,
        horizontal_flip: float | bool = 0.0,
        vertical_flip: float | bool = 0.0,
        color_jitter: Mapping[str, Any] | None = None,
        rotate: float | Sequence[float] | None = None,
        interpolation: str = "lanczos",
        custom: Any = (),
    ) -> None:
        options = ImageTransformConfig.of(
            {
                "resize": resize,
                "center_crop": center_crop,
                "random_crop": random_crop,
                "horizontal_flip": horizontal_flip,
                "vertical_flip": vertical_flip,
                "color_jitter": color_jitter,
                "rotate": rotate,
                "interpolation": interpolation,
            }
        )
        self.resize = _resize(options.resize)
        self.center_crop = options.center_crop
        self.crop_scale = _crop_scale(options.random_crop)
        self.horizontal_flip = _chance(options.horizontal_flip)
        self.vertical_flip = _chance(options.vertical_flip)
        self.color_jitter = ColorJitter(options.color_jitter)
        self.rotate = _rotate(options.rotate)
        self.interpolation: str = options.interpolation
        self.custom = as_steps(custom)
        self.whole = False
        """Whether the transform is callables only: they receive the upright original and decide the size."""

    def __repr__(self) -> str:
        options = {
            "resize": self.resize,
            "center_crop": self.center_crop,
            "random_crop": self.crop_scale,
            "horizontal_flip": self.horizontal_flip,
            "vertical_flip": self.vertical_flip,
            "color_jitter": self.color_jitter.ranges,
            "rotate": self.rotate if any(self.rotate) else None,
            "custom": list(self.custom),
        }
        return f"ImageTransform({', '.join(f'{name}={value}' for name, value in options.items() if value)})"

    @classmethod
    def from_config(cls, config: Any, *, where: str = "img_transform") -> Self:
        """Make the transform that an option describes.

        Args:
            config: None, a transform, its options (typed or as a mapping), a `{_component_: …}` mapping, a callable, or
                a list whose first item may be a mapping of options and whose others are callables. Callables without
                options set `whole`.
            where: The option's name, for messages.

        Raises:
            ConfigError: Anything else, or a wrong option.
        """
        if config is None:
            return cls()
        if isinstance(config, cls):
            return config
        if isinstance(config, Mapping) and COMPONENT not in config:
            config = ImageTransformConfig.of(config, where=where)
        if isinstance(config, ImageTransformConfig):
            return make_transform(cls, config, config.custom, (), where=where)
        if isinstance(config, Sequence) and not isinstance(config, str):
            options, steps, first = split_list(config)
            known = ImageTransformConfig.of(options, where=f"{where}[0]")
            made = make_transform(cls, known, known.custom, build_list(steps, where=where, first=first), where=where)
            made.whole = bool(steps) and not first
            return made
        built = build(plain(config), where=where)
        if isinstance(built, cls):
            return built
        if not callable(built):
            raise ConfigError(
                f"{where}: found {config!r}, expected a mapping of options "
                f"({', '.join(sorted(ImageTransformConfig.names()))}), a {COMPONENT} mapping, or a callable on images"
            )
        made = cls(custom=built)
        made.whole = True
        return made

    @property
    def random_crop(self) -> bool:
        """Whether the crop's position, or also its area, is random."""
        return self.crop_scale is not None

    @property
    def fixed_geometry(self) -> bool:
        """Whether the crop and the size are the same in every epoch, so that the result of `resample` can be cached.

        Flips are applied later, by `finish`.
        """
        return not (self.random_crop or self.whole or self.rotate != (0.0, 0.0))

    @property
    def resampling(self) -> tuple[Hashable, ...]:
        """The options that determine the result of `resample` for an image and a size, with `fixed_geometry`."""
        return self.resize, self.center_crop, self.interpolation

    @property
    def non_enumerable(self) -> tuple[str, ...]:
        """The options whose outcomes can't be enumerated: they are continuous, or callables."""
        found = {
            "random_crop": self.random_crop,
            "rotate": self.rotate[0] != self.rotate[1],
            "color_jitter": bool(self.color_jitter.ranges),
            "custom": bool(self.custom),
        }
        return tuple(name for name, there in found.items() if there)

    @property
    def flips(self) -> tuple[tuple[bool, bool], ...]:
        """Every (horizontal, vertical) flip with a probability above 0."""
        sides = [
            [False] if chance == 0.0 else [True] if chance == 1.0 else [False, True]
            for chance in (self.horizontal_flip, self.vertical_flip)
        ]
        return ((False, False),) if self.whole else tuple((h, v) for h in sides[0] for v in sides[1])

    @property
    def output_size(self) -> tuple[int, int] | None:
        """(height, width) of all samples without a bucket; None when it depends on the image."""
        if self.whole:
            return None
        if isinstance(self.resize, int):
            return (self.resize, self.resize) if self._crops else None
        return self.resize

    @property
    def _crops(self) -> bool:
        return self.center_crop or self.random_crop

    def draw(
        self,
        original_size: tuple[int, int],
        key: SampleKey,
        seed: int,
        *,
        variant: Variant | None = None,
        flip: tuple[bool, bool] | None = None,
    ) -> Geometry:
        """Return the geometry of one sample: a pure function of the arguments.

        Args:
            original_size: (height, width) of the upright image, in pixels.
            key: The sample's key. Its `size`, if any, is the target (height, width): the image is cropped to its aspect
                ratio, at random with `random_crop`, else at the centre; it is stretched if `resize` is the same pair.
            seed: The dataset's seed.
            variant: Seeds the crop and the angle in place of (seed, key). Flips still follow from (seed, key).
            flip: (horizontal, vertical) in place of the random flips.

        Raises:
            ConfigError: There is a crop without a size, from `resize` or a bucket.
        """
        height, width = original_size = (int(original_size[0]), int(original_size[1]))
        if self.whole:
            return make_geometry(
                original_size, original_size, (height, width), position=None, angle=0.0, flip=(False, False)
            )
        if flip is None:
            flip = self.drawn_flip(key, seed)
        # A constant number of draws in constant order, whatever the options (0 and 1 are `drawn_flip`'s); the generator
        # is only made when a draw is used.
        draws = [0.0] * 6
        if not self.fixed_geometry:
            rng = generator(seed, key, Stream.GEOMETRY) if variant is None else variant.generator(Stream.GEOMETRY)
            draws = rng.random(6).tolist()
        angle = self.rotate[0] + (self.rotate[1] - self.rotate[0]) * draws[2]
        target_size = self._target_size(original_size, key)
        if not self._crops and (key.size is None or target_size == self.resize):
            crop: tuple[float, float] = (height, width)
        else:
            crop = cover_box(original_size, target_size)
        position = None
        if self.crop_scale is not None:
            low, high = self.crop_scale
            side = math.sqrt(low + (high - low) * draws[3])
            crop = (crop[0] * side, crop[1] * side)
            position = (draws[4], draws[5])
        return make_geometry(original_size, target_size, crop, position=position, angle=angle, flip=flip)

    def drawn_flip(self, key: SampleKey, seed: int) -> tuple[bool, bool]:
        """Return the (horizontal, vertical) flip of `draw`, without the rest of the geometry."""
        if len(flips := self.flips) == 1:
            return flips[0]
        across, down = generator(seed, key, Stream.GEOMETRY).random(2).tolist()
        return across < self.horizontal_flip, down < self.vertical_flip

    def _target_size(self, original_size: tuple[int, int], key: SampleKey) -> tuple[int, int]:
        if key.size is not None:
            return int(key.size[0]), int(key.size[1])
        if self.output_size is not None:
            return self.output_size
        if isinstance(self.resize, int):
            return keep_aspect(original_size, self.resize)
        if self._crops:
            name = "center_crop" if self.center_crop else "random_crop"
            raise ConfigError(f"{name}: found no size to crop to; add resize, such as resize: [1024, 1024], or buckets")
        return original_size

    def outcomes(
        self, original_size: tuple[int, int], key: SampleKey, *, content: int, variants: int
    ) -> list[ImageOutcome]:
        """Return every outcome of `draw` and `finish`, with `variants` samples of the options in `non_enumerable`.

        Args:
            original_size: (height, width) of the upright image, in pixels.
            key: Only its `size` is used.
            content: A hash of the image's bytes, see `Variant`.
            variants: Samples taken in place of the options in `non_enumerable`.
        """
        numbers = [Variant(content, number) for number in range(variants)] if self.non_enumerable else [None]
        chances = (
            {False: 1.0 - self.horizontal_flip, True: self.horizontal_flip},
            {False: 1.0 - self.vertical_flip, True: self.vertical_flip},
        )
        return [
            ImageOutcome(
                geometry=self.draw(original_size, key, 0, variant=variant, flip=flip),
                variant=variant,
                probability=(1.0 if self.whole else chances[0][flip[0]] * chances[1][flip[1]]) / len(numbers),
            )
            for flip in self.flips
            for variant in numbers
        ]

    def needed_size(self, geometry: Geometry) -> tuple[int, int]:
        """Return the (height, width) of the whole image at which the crop has as many pixels as the sample.

        A decoder that can decode at a smaller scale needs no more than this times its margin.
        """
        if self.whole:
            return geometry.original_size
        (height, width), box, target = geometry.original_size, geometry.box, geometry.target_size
        return (
            min(height, math.ceil(height * target[0] / box[2])),
            min(width, math.ceil(width * target[1] / box[3])),
        )

    def resample(self, pixels: npt.NDArray[np.uint8], geometry: Geometry) -> torch.Tensor:
        """Crop, resize and rotate, without flip and colours.

        Args:
            pixels: uint8 (H', W', 3), sRGB, upright; smaller than `geometry.original_size` after a scaled decode.
            geometry: The result of `draw`.

        Returns:
            uint8 (3, h, w), contiguous.
        """
        if self.whole:
            return to_tensor(pixels)
        return crop_resize(pixels, geometry, self.interpolation)

    def finish(
        self, image: torch.Tensor, geometry: Geometry, key: SampleKey, seed: int, *, variant: Variant | None = None
    ) -> torch.Tensor:
        """Flip, apply colours and run the custom steps, on the device of `image`.

        Args:
            image: uint8 (3, h, w), the result of `resample`; not changed.
            geometry: The result of `draw`.
            key: The sample's key.
            seed: The dataset's seed.
            variant: Seeds colours and custom steps in place of (seed, key).

        Returns:
            uint8 (3, h, w), contiguous. (h, w) is `geometry.target_size`, unless the transform is callables only.

        Raises:
            ConfigError: A custom step returned something other than a uint8 image, or changed its size.
        """
        horizontal, vertical = geometry.flip
        axes = [axis for axis, flipped in ((2, horizontal), (1, vertical)) if flipped]
        if axes:
            image = image.flip(axes)
        if self.color_jitter.ranges:
            image = self.color_jitter(image, _generator(seed, key, Stream.COLOUR, variant))
        if self.custom:
            seeds = _generator(seed, key, Stream.CUSTOM, variant).integers(2**63, size=len(self.custom))
            for step, step_seed in zip(self.custom, seeds.tolist(), strict=True):
                image = step(image, step_seed)
            expected = key.size if self.whole else geometry.target_size
            if expected is not None and tuple(image.shape[1:]) != tuple(expected):
                raise ConfigError(
                    f"custom: the steps returned {image.shape[1]}×{image.shape[2]} pixels (height×width); expected "
                    f"{expected[0]}×{expected[1]}; set the size by resize and the crop options, or make img_transform "
                    "callables only and turn buckets off"
                )
        return image.contiguous()


def _generator(seed: int, key: SampleKey, stream: Stream, variant: Variant | None) -> np.random.Generator:
    return generator(seed, key, stream) if variant is None else variant.generator(stream)


def _resize(value: int | Sequence[int] | None) -> int | tuple[int, int] | None:
    return value if value is None or isinstance(value, int) else (value[0], value[1])


def _crop_scale(value: bool | RandomCropConfig) -> tuple[float, float] | None:
    if isinstance(value, bool):
        return (1.0, 1.0) if value else None
    return float(value.scale[0]), float(value.scale[1])


def _chance(value: float | bool) -> float:
    return 0.5 if value is True else float(value)


def _rotate(value: float | Sequence[float] | None) -> tuple[float, float]:
    if not value:
        return 0.0, 0.0
    return (-float(value), float(value)) if isinstance(value, int | float) else (float(value[0]), float(value[1]))
