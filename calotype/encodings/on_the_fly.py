"""OnTheFlyDataset: encodings that are made while training, the first time that each is needed, and kept."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from calotype.collate import collate
from calotype.encodings.dataset import EncodedDataset
from calotype.encodings.frozen import FrozenModels
from calotype.encodings.keys import scaling_key
from calotype.encodings.work import find_work
from calotype.encodings.worker import picture_pixels
from calotype.errors import ImageError
from calotype.types import Batch, SampleKey

__all__ = ["OnTheFlyDataset"]

logger = logging.getLogger("calotype")

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
    encode just what is missing, and the records go to the store. All other batches are read as ever. When everything
    is there (at the latest after one epoch without endless augmentations) the models leave memory.

    Texts that are kept without their padding are filled up to the model's full length here, since nobody knows yet
    how long the longest will be.
    """

    on_the_fly = True

    def _begin(self, models: FrozenModels) -> None:
        self._models: FrozenModels | None = models
        self._writer: Any = None
        self._complete = False
        self._text_length = models.max_sequence_length
        self.begin_epoch()

    def begin_epoch(self) -> None:
        """Called by the trainer's process between epochs: lets the models go when nothing is missing any more."""
        if self._complete or self._models is None:
            return
        work = find_work(self.addresses, self.store)
        self._complete = not work.pictures and not work.texts
        if self._complete:
            self._models.release_texts()
            self._models.release_pictures()
            self.close()

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
        return self

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
        records = [self.addresses.picture(key).key for key in keys]
        records += [self.addresses.text_key(self.addresses.caption(key).text) for key in keys]
        return bool((self.store.find(records) < 0).any())

    def _encode(self, keys: Sequence[SampleKey], images: torch.Tensor) -> None:
        """Makes what is missing of a batch."""
        assert self._models is not None
        if self._writer is None:
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
        return self.__dict__ | {"_models": None, "_writer": None}


def _loaded(value: Any) -> Any:
    return value.load() if hasattr(value, "load") else value
