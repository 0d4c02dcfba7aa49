"""OnTheFlyDataset: encodings that are made while training, the first time that each is needed, and kept."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import torch

from calotype.data.collate import collate
from calotype.data.sample_source import BatchSource
from calotype.encodings.dataset import EncodedDataset
from calotype.encodings.dataset_records import Fingerprints, ImageRecord, SampleRecords
from calotype.encodings.estimate import check_room, free_bytes
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
"""The key of a sample's records while it travels as pixels, until `finish` has encoded them."""

_T = TypeVar("_T")


class OnTheFlyDataset(EncodedDataset):
    """An `EncodedDataset` that begins with what the store has, however little that is.

    A batch of which a record is missing travels as pixels; in the trainer's process the frozen models, on its device,
    encode just what is missing, and the records go to the store. All other batches are read as ever. After the first
    whole epoch what was not drawn in it (other flips, captions, variants) is encoded as well, each rank its share; from
    then on nothing is missing, and the models leave memory.

    Texts that are kept without their padding are filled up to the model's full length here, since nobody knows yet
    how long the longest will be.
    """

    finishes_in_trainer = True
    """What is missing is encoded by the models of that process."""

    def _check_store(self, models: FrozenModels, fingerprints: Fingerprints) -> None:
        """Accept any store: what it lacks is encoded while training."""

    def _begin(self, models: FrozenModels) -> None:
        self._models: FrozenModels | None = models
        self._writer: Any = None
        self._complete = False
        self._rounds = 0
        """Times that what was left of an epoch has been encoded."""
        self._notes: list[LedgerEntry] = []
        """Samples of a batch that another stands in for."""
        self._text_length = models.max_sequence_length
        missing = find_missing(self.records, self.store)
        self._leave_out_marked(missing)
        check_room(missing, models, self.store.path, free=free_bytes(self.store.path))
        self.begin_epoch()

    def begin_epoch(
        self, *, first: bool = False, whole: bool = False, rank: int = 0, world_size: int = 1
    ) -> list[LedgerEntry]:
        """Lets the models go when nothing is missing any more.

        Args:
            first: Whether it is the loader's first epoch.
            whole: The epoch before went to its end, so that what is missing yet was not drawn in it: encode it.
            rank: Which share of that is this process's.
            world_size: In how many it is divided.

        Raises:
            StoreError: The disk has no room for what is missing.
        """
        self._complete_store(whole=whole, rank=rank, world_size=world_size)
        return super().begin_epoch(first=first, whole=whole, rank=rank, world_size=world_size)

    def _complete_store(self, *, whole: bool, rank: int, world_size: int) -> None:
        if self._complete or self._models is None:
            return
        self.store.refresh()
        work = find_missing(self.records, self.store)
        check_room(work, self._models, self.store.path, free=free_bytes(self.store.path))
        if whole and (work.images or work.texts):
            # What others did not do the first time (nobody waits for them), or could not, each does for itself.
            # Divided by key: the list itself may differ between the ranks, as others write meanwhile.
            mine = {key for key in work.needed if int.from_bytes(key[:8]) % world_size == rank or self._rounds > 0}
            self._encode_rest(
                [text for text in work.texts if text.key in mine],
                [picture for picture in work.images if picture.key in mine],
            )
            work = find_missing(self.records, self.store)
        self._complete = not work.images and not work.texts
        if self._complete:
            self._models.release_texts()
            self._models.release_pictures()
            self.close()

    def _encode_rest(self, texts: Sequence[TextRecord], pictures: Sequence[ImageRecord]) -> None:
        assert self._models is not None
        self._rounds += 1
        self.close()  # the worker has a writer of its own
        with EncodeWorker(self.dataset, self._models, self.store, threads=self._threads) as worker:
            with track("encoding captions that were not drawn", unit="captions") as show:
                worker.texts(texts, progress=show)
            with track("encoding images that were not drawn") as show:
                worker.images(pictures, progress=show)
        self.store.refresh()
        self._leave_out()

    def close(self) -> None:
        """Finishes the shard that is being written."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def __getitem__(self, key: int | SampleKey) -> dict[str, Any]:
        records = self.records.of_sample(self.dataset.checked(key))
        if self._missing([records]):
            self._encode([records], collate([self._pixels(records)])["img"])
        return self.finish(self._kept(self._described(records.key, records)))

    def for_batch(self, keys: Sequence[SampleKey]) -> BatchSource:
        """What prepares the samples of one batch: all are read, or all are decoded."""
        if self._complete:
            return super().for_batch(keys)
        records = {key: self.records.of_sample(key) for key in keys if self.records.contents[key.index] is not None}
        if self._missing(records.values()):
            self.store.refresh()
            if self._missing(records.values()):
                return BatchSource(lambda key: self._pixels(records.get(key) or self.records.of_sample(key)))
        return self._batch_source(keys, records)

    def _pixels(self, records: SampleRecords) -> dict[str, Any]:
        """A sample of a batch of which something is not encoded yet."""
        images = picture_pixels(self.dataset, [records.image])
        if isinstance(images, ImageError):
            raise images
        return {"img": images[0], _RECORDS: records}

    def finish(self, batch: Mapping[str, Any]) -> Batch:
        if "img" not in batch:
            return super().finish(batch)
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
        """Makes what is missing of a batch."""
        assert self._models is not None
        if self._writer is None or self._writer.forked:
            self._writer = self.store.writer()
        scaling = scaling_key(self.records.fingerprints.image)
        if self.store.find([scaling])[0] < 0:
            self._writer.put([scaling], [self._models.scaling], kind="scaling")
        pictures = {one.image.key: place for place, one in enumerate(samples)}
        texts = {one.text_key: one.text for one in samples}
        if todo := self._to_make(pictures):
            encoded = self._models.encode_pictures(images[[pictures[key] for key in todo]])
            records = [{name: value[row] for name, value in encoded.items()} for row in range(len(todo))]
            again = self._put(todo, records, kind="picture")
            self._put_again(again, encode_images_again, [images[pictures[key]] for key in again], kind="picture")
        if todo := self._to_make(texts):
            again = self._put(todo, self._models.encode_texts([texts[key] for key in todo]), kind="text")
            self._put_again(again, encode_texts_again, [texts[key] for key in again], kind="text")

    def _to_make(self, keys: Iterable[bytes]) -> list[bytes]:
        """The records that are missing, but those that can't be made."""
        missing = [key for key in keys if self.store.find_one(key) < 0]
        return [key for key in missing if self.store.find_one(not_finite_key(key)) < 0]

    def _put(self, keys: Sequence[bytes], records: Sequence[Mapping[str, torch.Tensor]], *, kind: str) -> list[bytes]:
        """Writes the finite records; returns the keys of the others."""
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
        """Makes records once more in float32, and marks those that are not finite there either."""
        if not keys:
            return
        assert self._models is not None
        for key, made in zip(keys, encode(self._models, items), strict=True):
            if isinstance(made, str):
                mark(self._writer, key, made)
            else:
                self._writer.put([key], [made], kind=kind)

    def _with_stand_ins(self, samples: list[SampleRecords]) -> list[SampleRecords]:
        """A batch's samples, another of the batch in the place of each that has no finite record.

        Raises:
            NotFiniteError: None has.
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
        return [one if one.key not in missing else good[place % len(good)] for place, one in enumerate(samples)]

    def __getstate__(self) -> dict[str, Any]:
        """The loader process reads and decodes; models and writer stay with the trainer."""
        return super().__getstate__() | {"_models": None, "_writer": None}


def _loaded(value: Any) -> Any:
    return value.load() if hasattr(value, "load") else value
