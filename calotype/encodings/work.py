"""What is still to be encoded of a dataset: every record its samples can need, less those the store has."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from calotype.encodings.addresses import Addresses, Picture
from calotype.encodings.keys import not_finite_key
from calotype.encodings.store import EncodingStore
from calotype.progress import Show

__all__ = ["Text", "Work", "find_work"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """One final caption and the key of its record."""

    text: str
    key: bytes
    index: int
    """A row that has it, to be named when something is wrong with it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """Records to make, each once."""

    pictures: tuple[Picture, ...]
    """By size, so that neighbours fit into one batch; outcomes of one file stand together."""
    texts: tuple[Text, ...]
    """By length."""
    reused: int
    """Records that the dataset needs and the store has."""
    needed: frozenset[bytes]
    """The keys of all of them, made or not."""
    marked: tuple[Picture | Text, ...] = ()
    """Those that can't be made: the store has a mark in their place, which says why."""


def find_work(addresses: Addresses, store: EncodingStore, *, progress: Show | None = None) -> Work:
    """Lists what a dataset needs, finds what is there, and orders the rest.

    The empty caption is always needed: what a dropped caption becomes, also when nothing is dropped yet.
    """
    pictures: dict[bytes, Picture] = {}
    texts: dict[bytes, Text] = {(key := addresses.text_key("")): Text(text="", key=key, index=0)}
    total = len(addresses)
    for index in range(total):
        for picture in addresses.pictures(index):
            pictures.setdefault(picture.key, picture)
        for text in addresses.texts(index):
            if (key := addresses.text_key(text)) not in texts:
                texts[key] = Text(text=text, key=key, index=index)
        if progress is not None and index % 1000 == 0:
            progress(index, total)
    missing = _missing(store, [*pictures, *texts])
    marks = set(missing) - set(_missing(store, missing, of=not_finite_key))
    todo = [key for key in missing if key not in marks]
    missing_pictures = [pictures[key] for key in todo if key in pictures]
    return Work(
        pictures=tuple(sorted(missing_pictures, key=lambda one: (one.geometry.target_size, one.index))),
        texts=tuple(sorted((texts[key] for key in todo if key in texts), key=lambda one: len(one.text))),
        reused=len(pictures) + len(texts) - len(missing),
        needed=frozenset(pictures) | frozenset(texts),
        marked=tuple(pictures[key] if key in pictures else texts[key] for key in missing if key in marks),
    )


def _missing(
    store: EncodingStore, keys: Sequence[bytes], *, of: Callable[[bytes], bytes] = lambda key: key
) -> list[bytes]:
    rows = store.find([of(key) for key in keys]).tolist()
    return [key for key, row in zip(keys, rows, strict=True) if row < 0]
