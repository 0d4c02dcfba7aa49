"""`EncodeWorker`: encodes chunks of images and texts with its own models into its own shards."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from typing import Any, Final, Protocol, TypeVar

import torch
import xxhash

from calotype.data.dataset import TextToImageDataset
from calotype.encodings.dataset_records import ImageRecord
from calotype.encodings.finite import (
    MARK,
    encode_images_again,
    encode_texts_again,
    finite_records,
    finite_stacked,
    mark,
    reason_record,
)
from calotype.encodings.frozen import FrozenModels
from calotype.encodings.keys import scaling_key, unreadable_key
from calotype.encodings.missing_records import TextRecord
from calotype.encodings.store import EncodingStore
from calotype.encodings.truncation import cut_note, cuts_of
from calotype.errors import CalotypeError, ImageError
from calotype.images.locks import DECODING
from calotype.ledger import LedgerEntry
from calotype.progress import Show, counter
from calotype.terminal import get_logger
from calotype.transforms import ImageTransform
from calotype.types import Geometry, SampleKey

__all__ = ["Done", "EncodeWorker", "Encoder", "picture_pixels"]

logger = get_logger("calotype")

_PIXELS: Final = {"cuda": 4 << 20, "cpu": 1 << 20}
"""Pixels of a batch by device type, unless the device runs out of memory: 4 images of 1024² on a GPU, 1 on a CPU."""
_TEXTS: Final = {"cuda": 32, "cpu": 8}
"""Texts of a batch by device type."""
_AHEAD: Final = 2
"""Maximum number of batches decoded ahead, and of batches waiting to be written, while another is encoded."""

_LASTING: Final = frozenset(("truncated", "damaged", "unsupported", "not_an_image", "too_many_pixels", "too_costly"))
"""Kinds of image errors that depend on the bytes of the file only, so they recur until it changes."""

_T = TypeVar("_T")
_Item = TypeVar("_Item", ImageRecord, TextRecord)


@dataclass(slots=True, kw_only=True)
class Done:
    """Result of a chunk."""

    encoded: int = 0
    """Number of records written."""
    bytes: int = 0
    """Bytes of their tensors."""
    failures: list[LedgerEntry] = field(default_factory=list)
    """Entries for images that can't be read, and for items without a finite record."""
    notes: list[LedgerEntry] = field(default_factory=list)
    """Entries for texts that a tokenizer truncates."""

    def count(self, records: Sequence[Mapping[str, torch.Tensor]]) -> None:
        """Count records that were written."""
        self.encoded += len(records)
        self.bytes += sum(tensor.nbytes for record in records for tensor in record.values())

    def add(self, other: Done) -> None:
        """Add the result of another chunk."""
        self.encoded += other.encoded
        self.bytes += other.bytes
        self.failures += other.failures
        self.notes += other.notes


class Encoder(Protocol):
    """One `EncodeWorker`, or a pool of them."""

    def texts(self, texts: Sequence[TextRecord], *, progress: Show | None = None) -> Done: ...

    def images(self, image_records: Sequence[ImageRecord], *, progress: Show | None = None) -> Done: ...


class EncodeWorker:
    """Encodes chunks, one after the other. On a GPU, up to three encoded batches may be unwritten at any time.

    Args:
        dataset: The dataset of the images and texts.
        models: The frozen models. A chunk loads what it needs, and frees the other kind: text encoders and autoencoder
            are never in memory together.
        store: Store of the records. The worker writes to shards of its own.
        threads: Number of images decoded at once.
        batch_size: Images encoded at once; None for as many as have 4 megapixels on a GPU, 1 on a CPU. Halved for all
            later batches whenever the device runs out of memory.
    """

    def __init__(
        self,
        dataset: TextToImageDataset,
        models: FrozenModels,
        store: EncodingStore,
        *,
        threads: int,
        batch_size: int | None = None,
    ) -> None:
        self._dataset, self._models, self._store = dataset, models, store
        self._batch_size = batch_size
        self._most: dict[str, int] = {}
        """Maximum batch size of `texts` and `images`, once the device ran out of memory."""
        self._writer = store.writer()
        self._decoders = ThreadPoolExecutor(threads, thread_name_prefix="calotype-decode")
        self._write_thread = ThreadPoolExecutor(1, thread_name_prefix="calotype-write")
        # On a CPU, decoding and encoding compete for the same cores.
        self._ahead = _AHEAD if models.device.type != "cpu" else 0

    def texts(self, texts: Sequence[TextRecord], *, progress: Show | None = None) -> Done:
        """Encode captions, batch by batch.

        Args:
            texts: A chunk; sorted by length, so that batches have little padding.
            progress: Called with (done, total) after each batch.

        Returns:
            The result. A text without a finite record is in its `failures`.
        """
        done = Done()
        size = self._batch_size or _TEXTS.get(self._models.device.type, 8)
        again: list[TextRecord] = []
        more = counter(progress, len(texts))
        self._models.release_pictures()
        with self._writing() as later:
            for number in range(0, len(texts), size):
                for some, records in self._halving("texts", texts[number : number + size], self._encode_texts):
                    later(partial(self._write_texts, some, records, finite_records(records), done, again))
                    done.notes += self._cut(some)  # in this thread: tokenizers are not thread-safe
                    more(len(some))
        # Encode texts whose records are not finite again, in float32.
        if again:
            made = encode_texts_again(self._models, [one.text for one in again])
            for text, record in zip(again, made, strict=True):
                self._write_again(text, record, done, kind="text")
        return done

    def images(
        self, image_records: Sequence[ImageRecord], *, progress: Show | None = None, scaling: bool = True
    ) -> Done:
        """Encode images. Consecutive images of one size form batches.

        Args:
            image_records: A chunk; sorted by size, so that batches are full.
            progress: Called with (done, total) after each batch.
            scaling: Whether to store the scaling of the latents, one record for all chunks.

        Returns:
            The result. Unreadable images and those without a finite record are in its `failures`.
        """
        done = Done()
        if not image_records:
            return done
        self._models.release_texts()
        if scaling:
            self._keep_scaling()
        again: list[ImageRecord] = []
        more = counter(progress, len(image_records))
        with self._writing() as later:
            for items in self._batches(image_records, done, more):
                images = torch.stack([image for _, image in items])  # uint8 (B, 3, H, W)
                for some, encoded in self._halving("images", range(len(items)), partial(self._encode, images)):
                    these = [items[index][0] for index in some]
                    later(partial(self._write_images, these, encoded, finite_stacked(encoded), done, again))
                    more(len(some))
                del images
        # Encode images whose records are not finite again, in float32.
        if again:
            pixels = [(one, picture_pixels(self._dataset, [one])) for one in again]
            readable = {one.key: found[0] for one, found in pixels if not isinstance(found, ImageError)}
            made = dict(zip(readable, encode_images_again(self._models, readable.values()), strict=True))
            for image_record, found in pixels:
                if isinstance(found, ImageError):
                    self._give_up(image_record, found, done)
                else:
                    self._write_again(image_record, made[image_record.key], done, kind="picture")
        return done

    def remainder(self, items: Sequence[_Item]) -> tuple[list[_Item], Done]:
        """Return the items of a dead worker's chunk that are not stored yet, and the result of those that are."""
        self._store.recover()
        left: list[_Item] = []
        done = Done()
        for one, row in zip(items, self._store.find([one.key for one in items]).tolist(), strict=True):
            if row < 0:
                left.append(one)
                continue
            done.encoded += 1
            done.bytes += sum(tensor.nbytes for tensor in self._store.layout(row))
            if isinstance(one, TextRecord):
                done.notes += self._cut([one])
        return left, done

    def close(self) -> None:
        """Complete the shard, and stop the threads."""
        self._decoders.shutdown(cancel_futures=True)
        self._write_thread.shutdown()
        self._writer.close()

    def __enter__(self) -> EncodeWorker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _encode_texts(self, batch: Sequence[TextRecord]) -> list[dict[str, torch.Tensor]]:
        return self._models.encode_texts([one.text for one in batch])

    def _encode(self, images: torch.Tensor, part: Sequence[int]) -> dict[str, torch.Tensor]:
        return self._models.encode_pictures(images[part[0] : part[-1] + 1])

    @contextmanager
    def _writing(self) -> Iterator[Callable[[Callable[[], None]], None]]:
        """Yield a function that runs a write in the writer thread. It blocks while too many writes are pending."""
        writes: deque[Future[None]] = deque()

        def later(write: Callable[[], None]) -> None:
            while len(writes) > self._ahead:
                writes.popleft().result()
            writes.append(self._write_thread.submit(write))

        try:
            yield later
        finally:
            for write in writes:
                write.result()

    def _write_texts(
        self,
        texts: Sequence[TextRecord],
        encoded: Sequence[Mapping[str, torch.Tensor]],
        finite: torch.Tensor,
        done: Done,
        again: list[TextRecord],
    ) -> None:
        good = finite.tolist()  # waits for the device
        again += [one for one, ok in zip(texts, good, strict=True) if not ok]
        kept = [(one.key, record) for one, record, ok in zip(texts, encoded, good, strict=True) if ok]
        records = [{name: tensor.to("cpu") for name, tensor in record.items()} for _, record in kept]
        self._writer.put([key for key, _ in kept], records, kind="text")
        done.count(records)

    def _write_images(
        self,
        image_records: Sequence[ImageRecord],
        encoded: Mapping[str, torch.Tensor],
        finite: torch.Tensor,
        done: Done,
        again: list[ImageRecord],
    ) -> None:
        good = finite.tolist()  # waits for the device
        again += [one for one, ok in zip(image_records, good, strict=True) if not ok]
        records = {name: tensor.to("cpu") for name, tensor in encoded.items()}
        if not all(good):
            records = {name: tensor[torch.tensor(good)] for name, tensor in records.items()}
        self._writer.put([one.key for one, ok in zip(image_records, good, strict=True) if ok], records, kind="picture")
        done.encoded += sum(good)
        done.bytes += sum(tensor.nbytes for tensor in records.values())

    def _write_again(
        self, item: TextRecord | ImageRecord, record: dict[str, torch.Tensor] | str, done: Done, *, kind: str
    ) -> None:
        """Write a record from float32, or report and mark an item that has no finite record."""
        if isinstance(record, str):
            done.failures.append(LedgerEntry(kind=MARK, id=self._dataset.manifest[item.index].id, reason=record))
            mark(self._writer, item.key, record)
            return
        self._writer.put([item.key], [record], kind=kind)
        done.count([record])

    def _keep_scaling(self) -> None:
        """Store the scaling from stored latents to the model's, so that training needs no autoencoder."""
        key = scaling_key(self._models.picture_fingerprint)
        if self._store.find_one(key) < 0:
            scaling = {name: tensor.to("cpu") for name, tensor in self._models.scaling.items()}
            self._writer.put([key], [scaling], kind="scaling")

    def _batches(
        self, image_records: Sequence[ImageRecord], done: Done, more: Callable[[int], None]
    ) -> Iterator[list[tuple[ImageRecord, torch.Tensor]]]:
        """Yield batches of decoded images of one shape, and decode the next ones in other threads.

        Args:
            image_records: A chunk.
            done: Gets an entry for each unreadable image.
            more: Called with the number of images skipped as unreadable.
        """
        # Outcomes of one file and size share a decode.
        groups = [list(group) for _, group in groupby(image_records, lambda one: (one.index, one.geometry.target_size))]
        pending: deque[tuple[list[ImageRecord], Future[list[torch.Tensor] | ImageError]]] = deque()
        todo = self._fetching(groups)
        batch: list[tuple[ImageRecord, torch.Tensor]] = []
        waiting = 0
        while True:
            # Submit decodes for this batch and `_ahead` further ones.
            while waiting < max(1, self._room(image_records[0])) * (1 + self._ahead):
                if (next_one := next(todo, None)) is None:
                    break
                dataset, group = next_one
                pending.append((group, self._decoders.submit(picture_pixels, dataset, group)))
                waiting += len(group)
            if not pending:
                break
            # Add the oldest images to the batch; yield it when it is full, or when the shape changes.
            group, future = pending.popleft()
            waiting -= len(group)
            images = future.result()
            if isinstance(images, ImageError):
                self._give_up(group[0], images, done)
                more(len(group))
                continue
            for image_record, image in zip(group, images, strict=True):
                if batch and (batch[0][1].shape != image.shape or len(batch) >= self._room(batch[0][0], image)):
                    yield batch
                    batch = []
                batch.append((image_record, image))
        if batch:
            yield batch

    def _fetching(self, groups: Sequence[list[ImageRecord]]) -> Iterator[tuple[TextToImageDataset, list[ImageRecord]]]:
        """Yield each group with a dataset to read it from. Images by URL are fetched some groups ahead."""
        dataset, reader = self._dataset, self._dataset.reader
        if not dataset.manifest.has_urls:
            yield from ((dataset, group) for group in groups)
            return
        size = reader.fetcher.connections
        begun: deque[tuple[TextToImageDataset, Sequence[list[ImageRecord]]]] = deque()
        for start in range(0, len(groups), size):
            some = groups[start : start + size]
            refs = [dataset.manifest[group[0].index].image for group in some]
            begun.append((dataset.with_reader(reader.ahead(refs)), some))
            if len(begun) == 2:
                fetched, some = begun.popleft()
                yield from ((fetched, group) for group in some)
        for fetched, some in begun:
            yield from ((fetched, group) for group in some)

    def _give_up(self, image_record: ImageRecord, error: ImageError, done: Done) -> None:
        """Report an unreadable image. If the cause is its bytes, mark it in the store: training then leaves it out."""
        id = self._dataset.manifest[image_record.index].id
        done.failures.append(LedgerEntry(kind="unreadable", id=id, reason=str(error)))
        key = unreadable_key(image_record.content)
        if error.kind in _LASTING and self._store.find_one(key) < 0:
            self._writer.put([key], [reason_record(error.reason)], kind="unreadable")

    def _room(self, image_record: ImageRecord, image: torch.Tensor | None = None) -> int:
        """Return the number of images of this size in a batch."""
        height, width = image.shape[1:] if image is not None else image_record.geometry.target_size
        pixels = _PIXELS.get(self._models.device.type, 1 << 20)
        size = self._batch_size or max(1, pixels // (height * width))
        return max(1, min(size, self._most.get("images", size)))

    def _halving(
        self, what: str, items: Sequence[Any], work: Callable[[Sequence[Any]], _T]
    ) -> Iterator[tuple[Sequence[Any], _T]]:
        """Process items in as few parts as the device's memory allows; halve the parts when it runs out.

        Args:
            what: `texts` or `images`.
            items: A batch.
            work: Processes a part of it.

        Yields:
            (part, result of `work`).
        """
        start = 0
        while start < len(items):
            part = items[start : start + self._most.get(what, len(items))]
            try:
                result = work(part)
            except torch.OutOfMemoryError as error:
                if len(part) == 1:
                    raise CalotypeError(
                        f"the {self._models.device} has not enough memory to encode one of the {what}: {error}; "
                        "free some of it, lower the resolution, or encode on another device"
                    ) from error
                self._most[what] = len(part) // 2
                logger.warning("out of memory: %s are encoded %d at a time from here on", what, len(part) // 2)
                if torch.cuda.is_available():
                    torch.cuda.empty_cache()
                continue
            yield part, result
            start += len(part)

    def _cut(self, batch: Sequence[TextRecord]) -> list[LedgerEntry]:
        cuts = cuts_of(self._models, [one.key for one in batch], [one.text for one in batch])
        found = zip(batch, cuts, strict=True)
        return [cut_note(self._dataset.manifest[one.index].id, cuts) for one, cuts in found if cuts]


def picture_pixels(
    dataset: TextToImageDataset, image_records: Sequence[ImageRecord]
) -> list[torch.Tensor] | ImageError:
    """Return the pixels of outcomes of one file, uint8 (3, H, W) each; or the error if it can't be read.

    They equal those of training without encodings: each depends on the file and its own geometry and variant only.
    """
    ref = dataset.manifest[image_records[0].index].image
    transform, reader = dataset.img_transform, dataset.reader
    images = []
    try:
        data = reader.read_bytes(ref)
        if xxhash.xxh3_128_digest(data) != image_records[0].content:
            return ImageError(ref.name, "it changed while its dataset was read; run again")
        decoded = None
        for one in image_records:
            # The scale of a `fast` decode depends on the outcome; an exact decode is the same for all.
            with DECODING.held():
                if decoded is None or reader.decode == "fast":
                    decoded = reader.read(ref, data=data, need=_need(transform, one.geometry))
                resampled = transform.resample(decoded.pixels, one.geometry)
            key = SampleKey(one.index, size=one.geometry.target_size if dataset.buckets is not None else None)
            images.append(transform.finish(resampled, one.geometry, key, dataset.seed, variant=one.variant))
    except ImageError as error:
        return error
    return images


def _need(transform: ImageTransform, geometry: Geometry) -> Callable[[tuple[int, int]], tuple[int, int]]:
    return lambda size: transform.needed_size(geometry)
