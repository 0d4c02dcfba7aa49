"""Data types shared by all layers: `Row` → `Sample` → `Batch`, and the `SampleKey` that requests a sample."""

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
"""Input of a training step: name → tensor (B, …), or for opt-in `text` and `id` a list of B strings."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRef:
    """Location of an encoded image. `calotype.images.ImageReader` reads it.

    Has one of four forms:

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
    """For messages and ids, relative if possible: `cats/a.jpg`, `shard.tar!a.jpg`, a URL."""

    path: str | None = None
    """Absolute path of the file or LMDB environment."""

    offset: int = 0
    size: int | None = None
    """In bytes: the image is `[offset, offset + size)` of the file; `size` None is the whole file."""

    key: bytes | None = None
    """Key of the value in the LMDB environment."""

    url: str | None = None
    """`http(s)://…`, or a URL of fsspec."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One image of a manifest with its captions and metadata, from the data alone: the image is not opened."""

    id: str
    """Unique in the manifest, and stable: relative, so it does not change when the dataset moves."""

    image: ImageRef

    captions: tuple[str, ...]
    """All captions, byte for byte. At least one: `("",)` is an image without a caption."""

    width: int | None = None
    height: int | None = None
    """Of the upright image, in pixels, if the data file holds them; else None."""

    weight: float = 1.0
    """Repeats in an epoch, as kohya's; a fraction is spread over epochs."""

    extra: Mapping[str, Any] = field(default_factory=dict)
    """Other columns of the data: name → value."""


class SampleKey(NamedTuple):
    """Identifies one sample of a dataset; all its randomness follows from (seed, key).

    The sampler passes it to `dataset[key]`, so no dataset or worker holds an epoch that could be stale.
    """

    index: int  # type: ignore[assignment]  # hides tuple.index, which a key does not need
    """Index of the row in the dataset."""
    epoch: int = 0
    """From 0."""
    size: tuple[int, int] | None = None
    """(height, width) of the bucket in pixels; None leaves the size to the image transform."""
    seed: int | None = None
    """None is the dataset's seed."""
    repeat: int = 0
    """How often this index occurred before in the same epoch; above 0 only for rows with a weight above 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Geometry:
    """How an image is cropped, resized, rotated and flipped to a sample. Sizes are (height, width) in pixels."""

    original_size: tuple[int, int]
    """Of the upright image, before any transform. SDXL's conditioning."""

    box: tuple[int, int, int, int]
    """(top, left, height, width) of the crop, in pixels of the original."""

    crop_top_left: tuple[int, int]
    """(top, left) of the crop, in pixels of the resized and flipped image. SDXL's conditioning."""

    target_size: tuple[int, int]
    """Of the sample's image tensor (3, h, w). SDXL's conditioning."""

    rotate: float = 0.0
    """Degrees, counter-clockwise, about the centre of the crop."""

    flip: tuple[bool, bool] = (False, False)
    """(horizontal, vertical)."""

    @property
    def scale(self) -> float:
        """Pixels of the sample per pixel of the original, the larger of both axes; above 1 enlarges."""
        return max(self.target_size[0] / self.box[2], self.target_size[1] / self.box[3])


class Sample(dict[str, Any]):
    """Input of a model transform: a dict of

    * `image`: uint8 tensor (3, H, W) in [0, 255], sRGB, upright;
    * `text`: str, the final caption;
    * `id`: str, the row's id;
    * `geometry`: a `Geometry`.
    """

    @property
    def image(self) -> torch.Tensor:
        """`self["image"]`, uint8 (3, H, W)."""
        image: torch.Tensor = self["image"]
        return image


@runtime_checkable
class Readable(Protocol):
    """A stored tensor that is not read yet; the caller provides the memory."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> torch.dtype: ...

    @property
    def nbytes(self) -> int: ...

    def read_into(self, out: memoryview, /) -> None:
        """Read the tensor, contiguous, into `out`, which has `nbytes` bytes."""
        ...


class Transform(Protocol):
    """A callable from mapping to mapping that does not modify its argument."""

    def __call__(self, sample: Mapping[str, Any], /) -> Mapping[str, Any]: ...


@runtime_checkable
class ModelTransform(Protocol):
    """A model's transform in two stages, so that pixels are moved as uint8 and normalised on the device.

    `transform(sample)` must equal `finish(prepare(sample))`, for a sample and for a batch.
    """

    def __call__(self, sample: Mapping[str, Any], /) -> dict[str, Any]: ...

    def prepare(self, sample: Mapping[str, Any], /) -> dict[str, Any]:
        """Tokenise; leave `img` uint8 (3, H, W). Runs in the loader's threads, on single samples."""
        ...

    def finish(self, batch: Mapping[str, Any], /) -> dict[str, Any]:
        """Convert `img`, uint8 (B, 3, H, W), to float in [-1, 1]. Runs on the device, on batches."""
        ...
