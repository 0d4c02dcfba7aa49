"""`OnTheFlyDataset`: encodes missing records while training, when they are first needed, and stores them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import torch

from calotype.data.collate import collate
from calotype.data.sample_source import BatchSource
from calotype.encodings.dataset import EncodedDataset
from calotype.encodings.dataset_records import Fingerprints, ImageRecord, SampleRecords
from calotype.encodings.encoding_time import EncodingTime
from calotype.encodings.estimate import check_room, kept_bytes
from calotype.encodings.finite import MARK, encode_images_again, encode_texts_again, finite_records, mark
from calotype.encodings.frozen import FrozenModels
from calotype.encodings.keys import not_finite_key, scaling_key
from calotype.encodings.missing_records import TextRecord, find_missing
from calotype.encodings.worker import EncodeWorker, picture_pixels
from calotype.errors import ImageError, NotFiniteError
from calotype.ledger import LedgerEntry
from calotype.progress import track
from calotype.types import Batch, SampleKey

__all__ = ["OnTheFlyDataset"]

_RECORDS = "sample_records"
"""Key of the `SampleRecords` in a sample of pixels. `finish` encodes it and removes the key."""

_T = TypeVar("_T")


class OnTheFlyDataset(EncodedDataset):
    """An `EncodedDataset` that starts with an incomplete or empty store.

    If a record of a batch is missing, the batch is copied to the device as pixels. There the frozen models encode the
    missing records, in the trainer's process, and store them. All other batches are read from the store. After the
    first complete epoch, records that were not sampled in it (other flips, captions, variants) are encoded as well,
    divided among the ranks. Then nothing is missing, and the models are freed.

    Texts stored without padding are padded to the model's maximum length, since the longest text is not known yet.
    """

    finishes_in_trainer = True
    """The models are in the trainer's process."""

    def _check_store(self, models: FrozenModels, fingerprints: Fingerprints) -> None:
        """Accept any store: what it lacks is encoded while training."""

    def _begin(self, models: FrozenModels) -> None:
        """Check that the disk has the space for the missing records; free the models if there are none."""
        self._models: FrozenModels | None = models
        self._writer: Any = None
        self._complete = False
        self._rounds = 0
        """Number of times that `_encode_rest` has run."""
        self._notes: list[LedgerEntry] = []
        """Entries for replaced samples, until `take_notes`."""
        self._text_length = models.max_sequence_length
        missing = find_missing(self.records, self.store)
        self._leave_out_marked(missing)
        check_room(missing, models, self.store.path)
        self.encoding_time = EncodingTime(len(missing.images) + len(missing.texts))
        self.missing_bytes = kept_bytes(missing, models).total if self.encoding_time.missing else 0
        """Bytes that the missing records will take in the store."""
        self.begin_epoch()

    def begin_epoch(
        self, *, first: bool = False, whole: bool = False, rank: int = 0, world_size: int = 1
    ) -> list[LedgerEntry]:
        """Encode the remaining records after a complete epoch; free the models once nothing is missing.

        Args:
            first: Whether this is the loader's first epoch.
            whole: Whether the previous epoch ran to its end. Records still missing were then not sampled in it: encode
                them.
            rank: Rank of this process, which encodes its share of them.
            world_size: Number of ranks.

        Returns:
            As `EncodedDataset.begin_epoch`.

        Raises:
            StoreError: The disk has too little space for the missing records.
        """
        self._complete_store(whole=whole, rank=rank, world_size=world_size)
        return super().begin_epoch(first=first, whole=whole, rank=rank, world_size=world_size)

    def _complete_store(self, *, whole: bool, rank: int, world_size: int) -> None:
        """Encode the remaining records if the previous epoch was complete; free the models if none is missing."""
        if self._complete or self._models is None:
            return
        self.store.refresh()
        work = find_missing(self.records, self.store)
        check_room(work, self._models, self.store.path)
        if whole and (work.images or work.texts):
            # Divide by key: the lists of the ranks may differ, as other ranks write at the same time. From the second
            # round on each rank encodes everything still missing: ranks do not wait for each other, and one may fail.
            mine = {key for key in work.needed if int.from_bytes(key[:8]) % world_size == rank or self._rounds > 0}
            texts = [text for text in work.texts if text.key in mine]
            images = [image for image in work.images if image.key in mine]
            self.encoding_time.close()
            with self.encoding_time.measured(len(texts) + len(images)):
                self._encode_rest(texts, images)
            work = find_missing(self.records, self.store)
        self._complete = not work.images and not work.texts
        if self._complete:
            self._models.release_texts()
            self._models.release_pictures()
            self.close()

    def _encode_rest(self, texts: Sequence[TextRecord], image_records: Sequence[ImageRecord]) -> None:
        """Encode these texts and images with a worker, as `calotype encode` does."""
        assert self._models is not None
        self._rounds += 1
        self.close()  # the worker has its own writer
        with EncodeWorker(self.dataset, self._models, self.store, threads=self._threads) as worker:
            with track("encoding captions that were not sampled", unit="captions") as show:
                worker.texts(texts, progress=show)
            with track("encoding images that were not sampled") as show:
                worker.images(image_records, progress=show)
        self.store.refresh()
        self._leave_out()

    def close(self) -> None:
        """Complete the shard that is being written."""
        self.encoding_time.close()
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def __getitem__(self, key: int | SampleKey) -> dict[str, Any]:
        records = self.records.of_sample(self.dataset.checked(key))
        if self._missing([records]):
            self._encode([records], collate([self._pixels(records)])["img"])
        return self.finish(self._kept(self._described(records.key, records)))

    def for_batch(self, keys: Sequence[SampleKey]) -> BatchSource:
        """Return what prepares the samples of one batch: it reads the records of all, or decodes all."""
        if self._complete:
            return super().for_batch(keys)
        records = {key: self.records.of_sample(key) for key in keys if self.records.contents[key.index] is not None}
        if self._missing(records.values()):
            self.store.refresh()
            if self._missing(records.values()):
                return BatchSource(lambda key: self._pixels(records.get(key) or self.records.of_sample(key)))
        return self._batch_source(keys, records)

    def _pixels(self, records: SampleRecords) -> dict[str, Any]:
        """Return a sample as pixels, uint8 (3, H, W), for a batch with missing records."""
        images = picture_pixels(self.dataset, [records.image])
        if isinstance(images, ImageError):
            raise images
        return {"img": images[0], _RECORDS: records}

    def finish(self, batch: Mapping[str, Any]) -> Batch:
        """Encode the missing records of a batch of pixels; sample and scale the latents, on the device of the batch."""
        if "img" not in batch:
            return super().finish(batch)
        # Encode, then read all records of the batch from the store.
        records: list[SampleRecords] = batch[_RECORDS]
        self._encode(records, batch["img"])
        records = self._with_stand_ins(records)
        kept = [self._kept(self._described(one.key, one)) for one in records]
        samples = [{name: _loaded(value) for name, value in sample.items()} for sample in kept]
        device = batch["img"].device
        made = {k: v.to(device) if isinstance(v, torch.Tensor) else v for k, v in collate(samples).items()}
        return super().finish(made)

    def take_notes(self) -> list[LedgerEntry]:
        notes, self._notes = self._notes, []
        return notes

    def _missing(self, samples: Iterable[SampleRecords]) -> bool:
        keys = [key for one in samples for key in (one.image.key, one.text_key)]
        return bool((self.store.find(keys) < 0).any())

    def _encode(self, samples: Sequence[SampleRecords], images: torch.Tensor) -> None:
        """Encode and store the missing records of a batch.

        Args:
            samples: The records of each sample.
            images: uint8 (B, 3, H, W), the pixels of each sample.
        """
        assert self._models is not None
        if self._writer is None or self._writer.forked:
            self._writer = self.store.writer()
        scaling = scaling_key(self.records.fingerprints.image)
        if self.store.find_one(scaling) < 0:
            self._writer.put([scaling], [self._models.scaling], kind="scaling")
        index_of = {one.image.key: index for index, one in enumerate(samples)}
        texts = {one.text_key: one.text for one in samples}
        new_images, new_texts = self._to_make(index_of), self._to_make(texts)
        with self.encoding_time.batch(len(new_images) + len(new_texts)):
            if new_images:
                # (B, …) tensors of the batch → one record for each image
                encoded = self._models.encode_pictures(images[[index_of[key] for key in new_images]])
                records = [{name: value[row] for name, value in encoded.items()} for row in range(len(new_images))]
                again = self._put(new_images, records, kind="picture")
                self._put_again(again, encode_images_again, [images[index_of[key]] for key in again], kind="picture")
            if new_texts:
                again = self._put(new_texts, self._models.encode_texts([texts[key] for key in new_texts]), kind="text")
                self._put_again(again, encode_texts_again, [texts[key] for key in again], kind="text")

    def _to_make(self, keys: Iterable[bytes]) -> list[bytes]:
        """Return the keys of missing records, except those marked as not finite."""
        missing = [key for key in keys if self.store.find_one(key) < 0]
        return [key for key in missing if self.store.find_one(not_finite_key(key)) < 0]

    def _put(self, keys: Sequence[bytes], records: Sequence[Mapping[str, torch.Tensor]], *, kind: str) -> list[bytes]:
        """Write the records that are finite; return the keys of the others."""
        finite = finite_records(records).tolist()
        good = [(key, record) for key, record, ok in zip(keys, records, finite, strict=True) if ok]
        made = [{name: value.to("cpu") for name, value in record.items()} for _, record in good]
        self._writer.put([key for key, _ in good], made, kind=kind)
        return [key for key, ok in zip(keys, finite, strict=True) if not ok]

    def _put_again(
        self,
        keys: Sequence[bytes],
        encode: Callable[[FrozenModels, list[_T]], list[dict[str, torch.Tensor] | str]],
        items: list[_T],
        *,
        kind: str,
    ) -> None:
        """Encode items again in float32; write their records, or marks for those that are not finite either."""
        if not keys:
            return
        assert self._models is not None
        for key, made in zip(keys, encode(self._models, items), strict=True):
            if isinstance(made, str):
                mark(self._writer, key, made)
            else:
                self._writer.put([key], [made], kind=kind)

    def _with_stand_ins(self, samples: list[SampleRecords]) -> list[SampleRecords]:
        """Replace samples without a finite record by others of the batch.

        Raises:
            NotFiniteError: No sample of the batch has finite records.
        """
        missing: dict[SampleKey, bytes] = {}
        for one in samples:
            for record in (one.image.key, one.text_key):
                if self.store.find_one(record) < 0:
                    missing.setdefault(one.key, record)
        good = [one for one in samples if one.key not in missing]
        for key, record in missing.items():
            id, why = self.manifest[key.index].id, self._why(record)
            if not good:
                raise NotFiniteError(f"{id}: {why}; no image of its batch has encodings without NaN or inf")
            self._notes.append(LedgerEntry(kind=MARK, id=id, reason=f"{why}; another of its batch stands in for it"))
        return [one if one.key not in missing else good[index % len(good)] for index, one in enumerate(samples)]

    def __getstate__(self) -> dict[str, Any]:
        """Return the state without models and writer: the loader process only reads and decodes."""
        return super().__getstate__() | {"_models": None, "_writer": None}


def _loaded(value: Any) -> Any:
    return value.load() if hasattr(value, "load") else value
