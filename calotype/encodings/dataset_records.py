"""`DatasetRecords`: the records that the samples of a dataset consist of. Needs neither pixels nor models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from calotype.core.rng import Stream, Variant
from calotype.data.dataset import TextToImageDataset
from calotype.encodings.keys import ImageKeys, text_key
from calotype.errors import ConfigError, DecodeError, ImageError
from calotype.images import Content, scan_contents
from calotype.ledger import LedgerEntry
from calotype.progress import Show
from calotype.transforms import CaptionDraw
from calotype.types import Geometry, SampleKey

__all__ = ["DatasetRecords", "Fingerprints", "ImageRecord", "Outcome", "SampleRecords", "Variants"]


class Fingerprints(NamedTuple):
    """Hashes of a model's frozen encoders: they change with everything that changes the outputs."""

    image: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Variants:
    """Numbers of variants of continuous augmentations. Discrete ones (flips, the choice of a caption, drops) need none.

    None refuses a dataset with such augmentations, so that none is frozen unnoticed.
    """

    image: int | None = None
    """Variants of crop, angle, colours and custom steps of each image."""
    caption: int | None = None
    """Variants of the order and the dropped parts of each caption."""

    def __post_init__(self) -> None:
        for name, count in (("image_variants", self.image), ("caption_variants", self.caption)):
            if count is not None and (isinstance(count, bool) or not isinstance(count, int) or count < 1):
                raise ConfigError(f"{name}: found {count!r}; expected a whole number above 0, such as 4, or null")


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRecord:
    """One outcome of one image, and the key of its record."""

    index: int
    """Index of the row."""
    content: bytes
    """Hash of the image's file."""
    geometry: Geometry
    variant: Variant | None
    """None without continuous augmentations."""
    key: bytes
    """Key of the record."""


class Outcome(NamedTuple):
    """Everything that determines the pixels of a sample."""

    row: int
    """Index of the row."""
    size: tuple[int, int] | None
    """(height, width) of its bucket."""
    flip: tuple[bool, bool]
    """(horizontal, vertical)"""
    variant: Variant | None
    """None without continuous augmentations."""


class SampleRecords(NamedTuple):
    """The records that one sample is made of."""

    key: SampleKey
    outcome: Outcome
    image: ImageRecord
    text: str
    """The final caption."""
    text_key: bytes
    """Key of the text's record."""


class DatasetRecords:
    """Returns the keys of the records of a dataset's samples.

    Args:
        dataset: The dataset.
        fingerprints: Hashes of the frozen models.
        variants: Numbers of variants of continuous augmentations.
        threads: Threads that hash image files whose hashes are not cached.
        progress: Called with (done, total) images while files are hashed.

    Raises:
        ConfigError: There is a continuous augmentation and no number of variants; or a custom step has no identity.
    """

    def __init__(
        self,
        dataset: TextToImageDataset,
        fingerprints: Fingerprints,
        variants: Variants,
        *,
        threads: int = 4,
        progress: Show | None = None,
    ) -> None:
        self.dataset = dataset
        self.fingerprints = fingerprints
        self.variants = variants
        refs = dataset.manifest.refs()
        found = scan_contents(refs, dataset.reader, threads=threads, progress=progress)
        self.contents: list[Content | None] = [one if isinstance(one, Content) else None for one in found]
        """Content of each row's image; None if it can't be read."""
        self.unreadable: dict[int, ImageError] = {i: one for i, one in enumerate(found) if isinstance(one, ImageError)}
        sizes = np.array([one.size if one is not None else (0, 0) for one in self.contents], np.int32).reshape(-1, 2)
        self.buckets, self.notes = dataset.scan(headers=sizes)
        """The bucket of each row, int32 (N,), -1 for rows left out; and ledger entries."""
        self.notes += [
            LedgerEntry(kind="unreadable", id=dataset.manifest[i].id, reason=str(error))
            for i, error in self.unreadable.items()
        ]
        self._check_variants()
        self._keys = ImageKeys(fingerprints.image, dataset.img_transform, dataset.reader)

    def __len__(self) -> int:
        return len(self.dataset)

    def leave_out(self, index: int, reason: str, *, kind: str = "unreadable") -> None:
        """Leave out a row whose image is unreadable, or that has no finite record."""
        row = self.dataset.manifest[index]
        error = DecodeError(row.image.name, reason)
        self.contents[index], self.unreadable[index], self.buckets[index] = None, error, -1
        self.notes.append(LedgerEntry(kind=kind, id=row.id, reason=str(error)))

    @property
    def usable(self) -> npt.NDArray[np.int64]:
        """Indices of the rows whose images can be read."""
        return np.flatnonzero([one is not None for one in self.contents])

    def images(self, index: int) -> list[ImageRecord]:
        """Return the records of every outcome of one row's image; none if it can't be read."""
        content = self.contents[index]
        if content is None:
            return []
        key = SampleKey(index, size=self._size(index))
        outcomes = self.dataset.img_transform.outcomes(
            content.size, key, content=_number(content), variants=self.variants.image or 1
        )
        return [self._image_record(index, content, one.geometry, one.variant) for one in outcomes]

    def texts(self, index: int) -> dict[str, float]:
        """Return every final caption that one row can have → its probability."""
        captions = self.dataset.manifest.captions_of(index)
        return self.dataset.caption_transform.outcomes(captions, variants=self.variants.caption or 1)

    def outcome(self, key: SampleKey) -> Outcome:
        """Return the outcome of its image that a sample shows.

        Raises:
            ImageError: The image can't be read.
        """
        content = self.contents[key.index]
        if content is None:
            raise self.unreadable[key.index].with_traceback(None)  # else the traceback grows each time it is raised
        transform, seed = self.dataset.img_transform, self._seed(key)
        variant = None
        if transform.non_enumerable:
            count = self.variants.image or 1
            variant = Variant.sampled(_number(content), count, key, seed, Stream.IMAGE_VARIANT)
        size = self._size(key.index) if key.size is None else key.size
        return Outcome(key.index, size, transform.drawn_flip(key, seed), variant)

    def image(self, key: SampleKey) -> ImageRecord:
        """Return the image record of a sample.

        Raises:
            ImageError: The image can't be read.
        """
        return self.image_of(self.outcome(key))

    def image_of(self, outcome: Outcome) -> ImageRecord:
        """Return the image record of an outcome; the image can be read."""
        index, size, flip, variant = outcome
        content = self.contents[index]
        assert content is not None
        # Flips and variant are determined, so the rest of the sample's key and the seed have no effect.
        transform, key = self.dataset.img_transform, SampleKey(index, size=size)
        return self._image_record(
            index, content, transform.draw(content.size, key, 0, variant=variant, flip=flip), variant
        )

    def of_sample(self, key: SampleKey) -> SampleRecords:
        """Return the records of a sample.

        Raises:
            ImageError: The image can't be read.
        """
        outcome, text = self.outcome(key), self.caption(key).text
        return SampleRecords(key, outcome, self.image_of(outcome), text, self.text_key(text))

    def caption(self, key: SampleKey) -> CaptionDraw:
        """Return the caption of a sample."""
        captions = self.dataset.manifest.captions_of(key.index)
        return self.dataset.caption_transform.draw(captions, key, self._seed(key), variants=self.variants.caption or 1)

    def text_key(self, text: str) -> bytes:
        """Return the key of a final caption's record."""
        return text_key(self.fingerprints.text, text)

    def _image_record(self, index: int, content: Content, geometry: Geometry, variant: Variant | None) -> ImageRecord:
        key = self._keys.key(content.digest, geometry, variant)
        return ImageRecord(index=index, content=content.digest, geometry=geometry, variant=variant, key=key)

    def _size(self, index: int) -> tuple[int, int] | None:
        if self.dataset.buckets is None:
            return None
        return self.dataset.buckets.sizes[self.buckets[index]]

    def _seed(self, key: SampleKey) -> int:
        return self.dataset.seed if key.seed is None else key.seed

    def _check_variants(self) -> None:
        """Refuse continuous augmentations without a number of variants; report a number that has no effect.

        Raises:
            ConfigError: There is such an augmentation.
        """
        transform, captions, spec = self.dataset.img_transform, self.dataset.caption_transform, self.dataset.spec
        for option, count, endless in (
            ("image_variants", self.variants.image, transform.non_enumerable),
            ("caption_variants", self.variants.caption, captions.non_enumerable),
        ):
            if count is not None and not endless:
                reason = "has no effect: all outcomes can be enumerated, and each is stored"
                self.notes.append(LedgerEntry(kind="no_effect", id=f"encodings.{option}", reason=reason))
        if transform.non_enumerable and self.variants.image is None:
            cost = ""
            if spec is not None and len(rows := self.usable):
                total = sum(spec.encodings.picture_bytes(*self._target(int(row))) for row in rows)
                cost = f"; each variant takes {_bytes(len(transform.flips) * total)} for {len(rows):,} images"
            raise ConfigError(_endless("img_transform", transform.non_enumerable, "images", "image_variants", cost))
        if captions.non_enumerable and self.variants.caption is None:
            cost = f"; each variant takes up to {_bytes(spec.encodings.text_bytes)} a caption" if spec else ""
            raise ConfigError(_endless("caption_transform", captions.non_enumerable, "texts", "caption_variants", cost))

    def _target(self, index: int) -> tuple[int, int]:
        content = self.contents[index]
        assert content is not None
        key = SampleKey(index, size=self._size(index))
        return self.dataset.img_transform.draw(content.size, key, 0, flip=(False, False)).target_size


def _number(content: Content) -> int:
    return int.from_bytes(content.digest[:8], "little")


def _endless(where: str, names: Sequence[str], what: str, option: str, cost: str) -> str:
    several = len(names) > 1
    return (
        f"{where}: {', '.join(names)} {'make' if several else 'makes'} other {what} every epoch, without end, and "
        f"encodings keep finitely many: encodings.{option}=4 keeps four, each as likely as the others{cost}; or "
        f"leave {'them' if several else 'it'} out"
    )


def _bytes(count: float) -> str:
    for unit in ("bytes", "kB", "MB", "GB", "TB"):
        if count < 1000 or unit == "TB":
            break
        count /= 1000
    return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
