"""The image program: where an image is cropped, how it is resized, flipped, turned and coloured."""

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
from calotype.core.rng import Stream, Variant, generator
from calotype.errors import ConfigError
from calotype.transforms.color import ColorJitter
from calotype.transforms.geometry import cover_box, keep_aspect, make_geometry
from calotype.transforms.options import as_list, build_list, split_list
from calotype.transforms.resample import crop_resize, to_tensor
from calotype.transforms.steps import as_steps
from calotype.types import Geometry, SampleKey

__all__ = ["ImageOutcome", "ImageTransform"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageOutcome:
    """One of the finitely many images that come of one."""

    geometry: Geometry
    variant: Variant | None
    """Draws the colours and custom steps too; None where nothing is endless."""
    probability: float


class ImageTransform:
    """Draws the geometry and the colours of a sample, and makes its pixels.

    The work is in three halves so that the middle one, the dear one, can be kept: `draw` decides, `resample` makes the
    pixels that only the geometry decides, `finish` flips and colours them. All draws follow from (seed, key); switching
    one option on changes no other option's draws.

    Args:
        resize: (height, width), or one number. A pair without a crop stretches to exactly this size; with a crop it
            scales to cover and crops. One number without a crop is the length of the shorter side, the aspect kept;
            with a crop it is the side of a square. A bucket's size (`SampleKey.size`) goes before it.
        center_crop: Keep the middle.
        random_crop: Keep a random part, as large as the target's aspect allows; `{"scale": [0.8, 1.0]}`: of a random
            area from 0.8 to 1.0 of that.
        horizontal_flip: Probability; `True` is 0.5.
        vertical_flip: Probability; `True` is 0.5.
        color_jitter: `brightness`, `contrast`, `saturation`, `hue` → strength or [min, max], as torchvision's.
        rotate: Up to so many degrees either way, or [min, max], counter-clockwise; at most 180. No empty corner shows:
            the part is taken from farther inside, and is smaller where the image does not reach.
        interpolation: `lanczos`, `bicubic` or `bilinear`, antialiased.
        custom: Callables on uint8 (3, H, W) tensors (or Pillow images) → the same, run last: torchvision's v2
            transforms, say.

    Raises:
        ConfigError: A value out of range, or options that contradict each other.
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
        """The program is nothing but callables: they get the upright image as it is, and decide its size."""

    @classmethod
    def from_config(cls, config: Any, *, where: str = "img_transform") -> Self:
        """The program that an option names.

        Args:
            config: None, a program, a mapping of options, a `{_component_: …}` mapping, a callable, or a list whose
                first item may be a mapping of options and whose others are callables. A callable alone is the whole
                program.
            where: The option's name, for messages.
        """
        if config is None:
            return cls()
        if isinstance(config, cls):
            return config
        if isinstance(config, Mapping) and COMPONENT not in config:
            config = ImageTransformConfig.of(config, where=where)
        if isinstance(config, ImageTransformConfig):
            return cls._from_options(config, (), where=where)
        if isinstance(config, Sequence) and not isinstance(config, str):
            options, steps, first = split_list(config)
            known = ImageTransformConfig.of(options, where=f"{where}[0]")
            made = cls._from_options(known, build_list(steps, where=where, first=first), where=where)
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

    @classmethod
    def _from_options(cls, options: ImageTransformConfig, steps: Sequence[Any], *, where: str) -> Self:
        custom = build(options.custom, where=f"{where}.custom")
        try:
            return cls(**{**options.given(), "custom": [*as_list(custom), *steps]})
        except ConfigError as error:
            raise ConfigError(f"{where}.{error}") from error

    @property
    def random_crop(self) -> bool:
        """The crop's place, or also its area, is drawn."""
        return self.crop_scale is not None

    @property
    def fixed_geometry(self) -> bool:
        """The part kept and its size are the same every epoch: what `resample` gives can be kept.

        Flips don't count, they come later.
        """
        return not (self.random_crop or self.whole or self.rotate != (0.0, 0.0))

    @property
    def resampling(self) -> tuple[Hashable, ...]:
        """All options that decide what `resample` makes of an image and a size, where the geometry is fixed."""
        return self.resize, self.center_crop, self.interpolation

    @property
    def non_enumerable(self) -> tuple[str, ...]:
        """The options whose outcomes can't be listed, for they are drawn from a continuum or by foreign code."""
        found = {
            "random_crop": self.random_crop,
            "rotate": self.rotate[0] != self.rotate[1],
            "color_jitter": bool(self.color_jitter.ranges),
            "custom": bool(self.custom),
        }
        return tuple(name for name, there in found.items() if there)

    @property
    def flips(self) -> tuple[tuple[bool, bool], ...]:
        """Every (horizontal, vertical) that can be drawn."""
        sides = [
            [False] if chance == 0.0 else [True] if chance == 1.0 else [False, True]
            for chance in (self.horizontal_flip, self.vertical_flip)
        ]
        return ((False, False),) if self.whole else tuple((h, v) for h in sides[0] for v in sides[1])

    @property
    def output_size(self) -> tuple[int, int] | None:
        """(height, width) of every sample that has no bucket, if it is one; None when the image decides."""
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
        """The geometry of one sample: a pure function of its arguments.

        Args:
            original_size: (height, width) of the upright image.
            key: Its `size`, if any, is the (height, width) to make. Unless `resize` is the same pair, which stretches,
                what is over is cropped: in the middle, or where `random_crop` says.
            seed: Of the dataset.
            variant: Draws what is endless, the crop and the angle, in the key's stead. The flips stay the key's.
            flip: (horizontal, vertical) to take, whatever the key draws.

        Raises:
            ConfigError: There is a crop, and neither `resize` nor a bucket says to what size.
        """
        height, width = original_size = (int(original_size[0]), int(original_size[1]))
        if self.whole:
            return make_geometry(
                original_size, original_size, (height, width), place=None, angle=0.0, flip=(False, False)
            )
        if flip is None:
            flip = self.drawn_flip(key, seed)
        # Always the same number of draws in the same order, whatever is switched on (the first two are the flips');
        # none where nothing asks for one.
        draws = [0.0] * 6
        if not self.fixed_geometry:
            rng = generator(seed, key, Stream.GEOMETRY) if variant is None else variant.generator(Stream.GEOMETRY)
            draws = rng.random(6).tolist()
        angle = self.rotate[0] + (self.rotate[1] - self.rotate[0]) * draws[2]
        target_size = self._target_size(original_size, key)
        if not self._crops and (key.size is None or target_size == self.resize):
            part: tuple[float, float] = (height, width)
        else:
            part = cover_box(original_size, target_size)
        place = None
        if self.crop_scale is not None:
            low, high = self.crop_scale
            side = math.sqrt(low + (high - low) * draws[3])
            part = (part[0] * side, part[1] * side)
            place = (draws[4], draws[5])
        return make_geometry(original_size, target_size, part, place=place, angle=angle, flip=flip)

    def drawn_flip(self, key: SampleKey, seed: int) -> tuple[bool, bool]:
        """The (horizontal, vertical) that `draw` gives a sample, without the rest of its geometry."""
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
            raise ConfigError(
                f"{name}: nothing says to what size; add resize, such as resize: [1024, 1024], or buckets"
            )
        return original_size

    def outcomes(
        self, original_size: tuple[int, int], key: SampleKey, *, content: int, variants: int
    ) -> list[ImageOutcome]:
        """Every outcome that `draw` and `finish` have where variants stand for what is endless.

        Args:
            original_size: (height, width) of the upright image.
            key: Its `size` counts.
            content: A hash of the image's bytes, see `Variant`.
            variants: How many draws stand for those that can't be listed.
        """
        numbers = [Variant(content, number) for number in range(variants)] if self.non_enumerable else [None]
        chances = (
            {False: 1.0 - self.horizontal_flip, True: self.horizontal_flip},
            {
                False: 1.0 - self.vertical_flip,
                True: self.vertical_flip,
            },
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
        """(height, width) of the whole image at which the part kept has just the pixels of the sample.

        A decoder that can decode at a smaller scale needs no more than this, times its own margin.
        """
        if self.whole:
            return geometry.original_size
        (height, width), box, target = geometry.original_size, geometry.box, geometry.target_size
        return (
            min(height, math.ceil(height * target[0] / box[2])),
            min(width, math.ceil(width * target[1] / box[3])),
        )

    def resample(self, pixels: npt.NDArray[np.uint8], geometry: Geometry) -> torch.Tensor:
        """The pixels that the geometry decides: cropped, resized and rotated, not flipped, not coloured.

        Args:
            pixels: uint8 (H', W', 3), upright; smaller than `geometry.original_size` when decoded at a smaller scale.
            geometry: What `draw` gave.

        Returns:
            uint8 (3, h, w), contiguous.
        """
        if self.whole:
            return to_tensor(pixels)
        return crop_resize(pixels, geometry, self.interpolation)

    def finish(
        self, image: torch.Tensor, geometry: Geometry, key: SampleKey, seed: int, *, variant: Variant | None = None
    ) -> torch.Tensor:
        """Flips, colours, and runs the custom steps, on the device where `image` is.

        Args:
            image: uint8 (3, h, w), what `resample` gave; not changed.
            geometry: What `draw` gave.
            key: The sample's.
            seed: Of the dataset.
            variant: Draws colours and custom steps in the key's stead.

        Returns:
            uint8 (3, h, w), contiguous. A program of callables alone may give another size than `geometry.target_size`.

        Raises:
            ConfigError: A custom step gave something else than a uint8 image, or changed the size asked for.
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
                    f"custom: the steps gave {image.shape[1]}×{image.shape[2]} pixels (height×width) where "
                    f"{expected[0]}×{expected[1]} were asked for; let resize and the crop options decide the size, "
                    "or make img_transform nothing but callables and switch buckets off"
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
