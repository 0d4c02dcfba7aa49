"""OnTheFlyDataset: encodings that are made while training, the first time that each is needed, and kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from calotype.collate import collate
from calotype.encodings.addresses import Picture
from calotype.encodings.dataset import EncodedDataset
from calotype.encodings.estimate import check_room, free_bytes
from calotype.encodings.frozen import FrozenModels
from calotype.encodings.keys import scaling_key
from calotype.encodings.work import Text, find_work
from calotype.encodings.worker import EncodeWorker, picture_pixels
from calotype.errors import ImageError
from calotype.progress import counter, track
from calotype.types import Batch, SampleKey

__all__ = ["OnTheFlyDataset"]

_KEYS = "sample_keys"


class _Pixels:
    """The same samples as pixels and texts, for batches of which something is not encoded yet."""

    def __init__(self, encoded: OnTheFlyDataset) -> None:
        self._encoded = encoded

    def __len__(self) -> int:
        return len(self._encoded)

    def prepare(self, key: SampleKey) -> dict[str, Any]:
        encoded = self._encoded
        key = encoded.dataset.checked(key)
        images = picture_pixels(encoded.dataset, [encoded.addresses.picture(key)])
        if isinstance(images, ImageError):
            raise images
        return {"img": images[0], _KEYS: tuple(key)}

    def finish(self, batch: Mapping[str, Any]) -> Batch:
        return dict(batch)


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

    def _begin(self, models: FrozenModels) -> None:
        self._models: FrozenModels | None = models
        self._writer: Any = None
        self._complete = False
        self._rounds = 0
        """Times that what was left of an epoch has been encoded."""
        self._text_length = models.max_sequence_length
        missing = find_work(self.addresses, self.store)
        check_room(missing, models, self.store.path, free=free_bytes(self.store.path))
        self.begin_epoch()

    def begin_epoch(self, *, whole: bool = False, rank: int = 0, world_size: int = 1) -> None:
        """Called by the trainer's process between epochs: lets the models go when nothing is missing any more.

        Args:
            whole: The epoch before went to its end, so that what is missing yet was not drawn in it: encode it.
            rank: Which share of that is this process's.
            world_size: In how many it is divided.
        """
        if self._complete or self._models is None:
            return
        self.store.refresh()
        work = find_work(self.addresses, self.store)
        if whole and (work.pictures or work.texts):
            # What others did not do the first time (nobody waits for them), or could not, each does for itself.
            # Divided by key: the list itself may differ between the ranks, as others write meanwhile.
            mine = {key for key in work.needed if int.from_bytes(key[:8]) % world_size == rank or self._rounds > 0}
            self._encode_rest(
                [text for text in work.texts if text.key in mine],
                [picture for picture in work.pictures if picture.key in mine],
            )
            work = find_work(self.addresses, self.store)
        self._complete = not work.pictures and not work.texts
        if self._complete:
            self._models.release_texts()
            self._models.release_pictures()
            self.close()

    def _encode_rest(self, texts: Sequence[Text], pictures: Sequence[Picture]) -> None:
        assert self._models is not None
        self._rounds += 1
        self.close()  # the worker has a writer of its own
        with EncodeWorker(self.dataset, self._models, self.store, threads=self._threads) as worker:
            with track("encoding captions that were not drawn", unit="captions") as show:
                worker.texts(texts, progress=counter(show, len(texts)))
            with track("encoding pictures that were not drawn") as show:
                worker.pictures(pictures, progress=counter(show, len(pictures)))
        self.store.refresh()
        self._leave_out()

    def close(self) -> None:
        """Finishes the shard that is being written."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def __getitem__(self, key: int | SampleKey) -> dict[str, Any]:
        key = self.dataset.checked(key)
        if self._missing([key]):
            self._encode([key], collate([_Pixels(self).prepare(key)])["img"])
        return super().__getitem__(key)

    def for_batch(self, keys: Sequence[SampleKey]) -> Any:
        """What prepares the samples of one batch: all are read, or all are decoded."""
        if not self._complete and self._missing(keys):
            self.store.refresh()
            if self._missing(keys):
                return _Pixels(self)
        return super().for_batch(keys)

    def finish(self, batch: Mapping[str, Any]) -> Batch:
        if "img" not in batch:
            return super().finish(batch)
        keys = [SampleKey(*key) for key in batch[_KEYS]]
        self._encode(keys, batch["img"])
        samples = [{name: _loaded(value) for name, value in self.prepare(key).items()} for key in keys]
        device = batch["img"].device
        made = {k: v.to(device) if isinstance(v, torch.Tensor) else v for k, v in collate(samples).items()}
        return super().finish(made)

    def _missing(self, keys: Sequence[SampleKey]) -> bool:
        readable = [key for key in keys if self.addresses.contents[key.index] is not None]
        records = [self.addresses.picture(key).key for key in readable]
        records += [self.addresses.text_key(self.addresses.caption(key).text) for key in keys]
        return bool((self.store.find(records) < 0).any())

    def _encode(self, keys: Sequence[SampleKey], images: torch.Tensor) -> None:
        """Makes what is missing of a batch."""
        assert self._models is not None
        if self._writer is None or self._writer.forked:
            self._writer = self.store.writer()
        scaling = scaling_key(self.addresses.fingerprints.picture)
        if self.store.find([scaling])[0] < 0:
            self._writer.put([scaling], [self._models.scaling], kind="scaling")
        pictures = {self.addresses.picture(key).key: place for place, key in enumerate(keys)}
        texts = {self.addresses.text_key(text): text for text in {self.addresses.caption(key).text for key in keys}}
        todo = [key for key, row in zip(pictures, self.store.find(pictures).tolist(), strict=True) if row < 0]
        if todo:
            encoded = self._models.encode_pictures(images[[pictures[key] for key in todo]])
            self._writer.put(todo, {name: tensor.to("cpu") for name, tensor in encoded.items()}, kind="picture")
        todo = [key for key, row in zip(texts, self.store.find(texts).tolist(), strict=True) if row < 0]
        if todo:
            records = self._models.encode_texts([texts[key] for key in todo])
            kept = [{name: tensor.to("cpu") for name, tensor in record.items()} for record in records]
            self._writer.put(todo, kept, kind="text")

    def __getstate__(self) -> dict[str, Any]:
        """The loader process reads and decodes; models and writer stay with the trainer."""
        return super().__getstate__() | {"_models": None, "_writer": None}


def _loaded(value: Any) -> Any:
    return value.load() if hasattr(value, "load") else value
