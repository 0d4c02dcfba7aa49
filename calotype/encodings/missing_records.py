"""`find_missing`: the records that a dataset needs and its store does not have."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from calotype.encodings.dataset_records import DatasetRecords, ImageRecord
from calotype.encodings.keys import not_finite_key
from calotype.encodings.store import EncodingStore
from calotype.progress import Show

__all__ = ["MissingRecords", "TextRecord", "find_missing"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TextRecord:
    """One final caption and the key of its record."""

    text: str
    key: bytes
    index: int
    """Index of a row with this caption, for messages."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MissingRecords:
    """Records to encode, without duplicates."""

    images: tuple[ImageRecord, ...]
    """Sorted by size, for batches of one size; outcomes of one file are adjacent."""
    texts: tuple[TextRecord, ...]
    """Sorted by length."""
    reused: int
    """Number of records that the dataset needs and the store has."""
    needed: frozenset[bytes]
    """Keys of all records that the dataset needs, stored or not."""
    marked: tuple[ImageRecord | TextRecord, ...] = ()
    """Records that can't be encoded: the store has a mark with the reason instead."""


def find_missing(records: DatasetRecords, store: EncodingStore, *, progress: Show | None = None) -> MissingRecords:
    """Return the records that a dataset needs and the store does not have.

    The empty caption is always needed: it replaces dropped captions.

    Args:
        records: The records of the dataset.
        store: The store.
        progress: Called with (done, total) rows.
    """
    # Collect the records of all rows, each once.
    images: dict[bytes, ImageRecord] = {}
    texts: dict[bytes, TextRecord] = {(key := records.text_key("")): TextRecord(text="", key=key, index=0)}
    total = len(records)
    for index in range(total):
        for image in records.images(index):
            images.setdefault(image.key, image)
        for text in records.texts(index):
            if (key := records.text_key(text)) not in texts:
                texts[key] = TextRecord(text=text, key=key, index=index)
        if progress is not None and index % 1000 == 0:
            progress(index, total)
    # Look them up, and those that are missing once more by the key of their mark.
    missing = _missing(store, [*images, *texts])
    marks = set(missing) - set(_missing(store, missing, of=not_finite_key))
    todo = [key for key in missing if key not in marks]
    missing_images = [images[key] for key in todo if key in images]
    return MissingRecords(
        images=tuple(sorted(missing_images, key=lambda one: (one.geometry.target_size, one.index))),
        texts=tuple(sorted((texts[key] for key in todo if key in texts), key=lambda one: len(one.text))),
        reused=len(images) + len(texts) - len(missing),
        needed=frozenset(images) | frozenset(texts),
        marked=tuple(images[key] if key in images else texts[key] for key in missing if key in marks),
    )


def _missing(
    store: EncodingStore, keys: Sequence[bytes], *, of: Callable[[bytes], bytes] = lambda key: key
) -> list[bytes]:
    rows = store.find([of(key) for key in keys]).tolist()
    return [key for key, row in zip(keys, rows, strict=True) if row < 0]
