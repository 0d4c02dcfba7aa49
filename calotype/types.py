"""The values that travel down the data's way: Row → Sample → Batch, and the key that asks for one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

if TYPE_CHECKING:
    import torch

__all__ = [
    "Batch",
    "Geometry",
    "ImageRef",
    "ModelTransform",
    "Readable",
    "Row",
    "Sample",
    "SampleKey",
    "Transform",
]

Batch = dict[str, Any]
"""What a training step gets: name → tensor with the batch in front, or (opt-in) a list of strings."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRef:
    """Where an image's bytes are. Plain data: reading it is `calotype.images`' business.

    One of four forms:

    ========== ======================= =======================================================
    form       fields set              example
    ========== ======================= =======================================================
    file       `path`                  a photo on disk
    byte range `path`, `offset`+`size` a member of a tar shard, a value in an Arrow file
    LMDB       `path`, `key`           a value of an LMDB environment
    remote     `url`                   `https://…`, or an fsspec URL (`s3://…`, `hf://…`)
    ========== ======================= =======================================================
    """

    name: str
    """As a person would find it, relative where that is possible: `cats/a.jpg`, `shard.tar!a.jpg`, a URL."""

    path: str | None = None
    """Absolute path of the file (or LMDB environment) that holds the bytes."""

    offset: int = 0
    size: int | None = None
    """Bytes `[offset, offset + size)` of the file; `size` None means the whole file."""

    key: bytes | None = None
    url: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One image of a manifest and what is known of it without opening it."""

    id: str
    """Stable and unique in its manifest; relative, so that it survives a move of the dataset."""

    image: ImageRef

    captions: tuple[str, ...]
    """All of them, byte for byte. Never empty: `("",)` is an image that is meant to have no caption."""

    width: int | None = None
    height: int | None = None
    """In pixels, upright, when the data file says so; None when only the image knows."""

    weight: float = 1.0
    """How many times an epoch shows it (kohya's repeats); fractions are spread over epochs."""

    extra: Mapping[str, Any] = field(default_factory=dict)
    """Any other columns."""


class SampleKey(NamedTuple):
    """Asks a dataset for one sample; everything random about it follows from this key.

    The sampler hands it over, so no dataset or worker holds an epoch that could get stale.
    """

    index: int  # type: ignore[assignment]  # it hides tuple.index, which nobody asks of a key
    epoch: int = 0
    size: tuple[int, int] | None = None
    """(height, width) of the bucket; None leaves it to the image program."""
    seed: int | None = None
    """None means the dataset's own."""
    repeat: int = 0
    """Counts the times this index has come before in the same epoch (rows with a weight above 1)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Geometry:
    """How an image became the pixels of a sample. Sizes are (height, width) in pixels."""

    original_size: tuple[int, int]
    """Upright, before anything was done to it."""

    box: tuple[int, int, int, int]
    """(top, left, height, width) of the part of the original that was kept."""

    crop_top_left: tuple[int, int]
    """Of that part, in the coordinates of the resized (and flipped) image: SDXL's conditioning."""

    target_size: tuple[int, int]
    """Of the tensor."""

    rotate: float = 0.0
    """Degrees, counter-clockwise, around the middle of the box."""

    flip: tuple[bool, bool] = (False, False)
    """(horizontal, vertical)."""

    @property
    def scale(self) -> float:
        """Output pixels for each pixel of the original; above 1 the image was enlarged."""
        return max(self.target_size[0] / self.box[2], self.target_size[1] / self.box[3])


class Sample(dict[str, Any]):
    """What a model transform gets: a mapping of

    * `image`: uint8 tensor (3, H, W), sRGB, upright;
    * `text`: the final caption;
    * `id`: the row's id;
    * `geometry`: a `Geometry`.
    """

    @property
    def image(self) -> torch.Tensor:
        image: torch.Tensor = self["image"]
        return image


@runtime_checkable
class Readable(Protocol):
    """A tensor that is somewhere else still: whoever has memory for it says where it is to go."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> torch.dtype: ...

    @property
    def nbytes(self) -> int: ...

    def read_into(self, out: memoryview, /) -> None:
        """Fills the memory of a contiguous tensor of this shape and dtype: `nbytes` bytes."""
        ...


class Transform(Protocol):
    """Mapping → mapping. It copies before it changes."""

    def __call__(self, sample: Mapping[str, Any], /) -> Mapping[str, Any]: ...


@runtime_checkable
class ModelTransform(Protocol):
    """A model's transform in two halves, so that pixels travel as uint8 and are normalised on the device.

    `transform(sample)` must equal `finish(prepare(sample))`, for one sample as for a batch.
    """

    def __call__(self, sample: Mapping[str, Any], /) -> dict[str, Any]: ...

    def prepare(self, sample: Mapping[str, Any], /) -> dict[str, Any]:
        """Tokenises; leaves `img` uint8. Runs in the loader's threads."""
        ...

    def finish(self, batch: Mapping[str, Any], /) -> dict[str, Any]:
        """`img` → float in [-1, 1]. Runs on the device, on whole batches."""
        ...
