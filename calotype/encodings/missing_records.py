"""What is still to be encoded of a dataset: every record its samples can need, less those the store has."""

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
    """A row that has it, to be named when something is wrong with it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MissingRecords:
    """Records to make, each once."""

    images: tuple[ImageRecord, ...]
    """By size, so that neighbours fit into one batch; outcomes of one file stand together."""
    texts: tuple[TextRecord, ...]
    """By length."""
    reused: int
    """Records that the dataset needs and the store has."""
    needed: frozenset[bytes]
    """The keys of all of them, made or not."""
    marked: tuple[ImageRecord | TextRecord, ...] = ()
    """Those that can't be made: the store has a mark in their place, which says why."""


def find_missing(records: DatasetRecords, store: EncodingStore, *, progress: Show | None = None) -> MissingRecords:
    """Lists what a dataset needs, finds what is there, and orders the rest.

    The empty caption is always needed: what a dropped caption becomes, also when nothing is dropped yet.
    """
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
