"""Records with NaN or inf: detected on the device, encoded again in float32, else marked as failed.

Encoders trained in float32 overflow in float16 on some images and texts (SDXL's autoencoder, T5). An item whose record
has NaN or inf is encoded again in float32 and rounded to the dtype of the other records. If that is not finite either,
the store gets a mark with the reason in place of the record: training leaves the item out, with a ledger entry.
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
    "reason_record",
]

MARK = "not_finite"
"""Kind of the record of a mark, and of the ledger entry."""

Record = dict[str, Tensor]


def finite_records(records: Sequence[Mapping[str, Tensor]]) -> Tensor:
    """Return whether all values of each record are finite: bool (n,) on the records' device. Does not synchronise."""
    return torch.stack([torch.stack([value.isfinite().all() for value in one.values()]).all() for one in records])


def finite_stacked(records: Mapping[str, Tensor]) -> Tensor:
    """Return whether all values of each of B stacked records (B, …) are finite: bool (B,) on their device."""
    return torch.stack([value.isfinite().flatten(1).all(dim=1) for value in records.values()]).all(dim=0)


def encode_texts_again(models: FrozenModels, texts: Sequence[str]) -> list[Record | str]:
    """Encode texts again, with encoders in float32.

    Args:
        models: The models whose records of these texts were not finite. Its text encoders are freed.
        texts: Final captions.

    Returns:
        For each text a finite record of `models.dtype` on the CPU, or the reason why there is none.
    """
    models.release_texts()
    with _in_float32(models) as wide:
        return [_rounded(wide.encode_texts([text])[0], models, "the text encoders") for text in texts]


def encode_images_again(models: FrozenModels, images: Iterable[Tensor]) -> list[Record | str]:
    """Encode images again, with the autoencoder in float32.

    Args:
        models: The models whose records of these images were not finite. Its autoencoder is freed.
        images: Each (3, H, W), uint8 or float in [-1, 1].

    Returns:
        For each image a finite record of `models.dtype` on the CPU, or the reason why there is none.
    """
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
    """Write a mark in place of a record.

    Args:
        writer: Writer of the store.
        key: Key of the record.
        reason: Why there is none.
    """
    writer.put([not_finite_key(key)], [reason_record(reason)], kind=MARK)


def reason_record(reason: str) -> Record:
    """Return the record of a mark."""
    return {"reason": torch.frombuffer(bytearray(reason.encode()), dtype=torch.uint8)}


def reason_of(record: Mapping[str, Tensor]) -> str:
    """Return the reason in a mark."""
    return bytes(record["reason"].tolist()).decode()
