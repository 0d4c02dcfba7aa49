"""Records that are not finite: found on the device, made again in float32, or named.

Encoders that were trained in float32 overflow in float16 on some images and texts (SDXL's autoencoder, T5). What comes
out as NaN or inf is encoded once more in float32 and rounded to the dtype of the others; what is not finite then either
is no record: the store gets a mark with the reason in its place, so that training does without it, by name.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from calotype.encodings.frozen import FrozenModels
from calotype.encodings.keys import not_finite_key
from calotype.encodings.store.writer import ShardWriter

__all__ = [
    "MARK",
    "encode_images_again",
    "encode_texts_again",
    "finite_records",
    "finite_stacked",
    "mark",
    "reason_of",
]

MARK = "not_finite"
"""The kind of a mark's record, and of the ledger's entry."""

Record = dict[str, Tensor]


def finite_records(records: Sequence[Mapping[str, Tensor]]) -> Tensor:
    """(n,) bool on the records' device: whether every number of each record is finite. Waits for nothing."""
    return torch.stack([torch.stack([value.isfinite().all() for value in one.values()]).all() for one in records])


def finite_stacked(records: Mapping[str, Tensor]) -> Tensor:
    """The same of stacked records (B, …)."""
    return torch.stack([value.isfinite().flatten(1).all(dim=1) for value in records.values()]).all(dim=0)


def encode_texts_again(models: FrozenModels, texts: Sequence[str]) -> list[Record | str]:
    """The record of each text that was not finite, on the CPU, from encoders in float32; or why there is none."""
    models.release_texts()
    with _in_float32(models) as wide:
        return [_rounded(wide.encode_texts([text])[0], models, "the text encoders") for text in texts]


def encode_images_again(models: FrozenModels, images: Iterable[Tensor]) -> list[Record | str]:
    """The same of images, each (3, H, W)."""
    models.release_pictures()
    with _in_float32(models) as wide:
        encoded = (wide.encode_pictures(image[None]) for image in images)
        return [_rounded({name: value[0] for name, value in one.items()}, models, "the autoencoder") for one in encoded]


@contextmanager
def _in_float32(models: FrozenModels) -> Iterator[FrozenModels]:
    wide = models.in_float32()
    try:
        yield wide
    finally:
        wide.release_texts()
        wide.release_pictures()


def _rounded(record: Mapping[str, Tensor], models: FrozenModels, what: str) -> Record | str:
    exact = {name: value.to("cpu") for name, value in record.items()}
    rounded = {name: value.to(models.dtype) for name, value in exact.items()}
    if finite_records([rounded]):
        return rounded
    if finite_records([exact]):
        largest = max(float(value.abs().max()) for value in exact.values())
        dtype = str(models.dtype).removeprefix("torch.")
        return f"{what} gave {largest:.3g}, more than {dtype} can hold; encodings.dtype=float32 can"
    return f"{what} gave NaN or inf for it, in float32 too"


def mark(writer: ShardWriter, key: bytes, reason: str) -> None:
    """Writes in a record's place why there is none."""
    text = torch.frombuffer(bytearray(reason.encode()), dtype=torch.uint8)
    writer.put([not_finite_key(key)], [{"reason": text}], kind=MARK)


def reason_of(record: Mapping[str, Tensor]) -> str:
    """What a mark says."""
    return bytes(record["reason"].tolist()).decode()
