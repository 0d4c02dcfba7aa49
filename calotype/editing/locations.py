"""Where the captions of each image are: its records in data files, and the files beside it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from calotype.editing.document import Document, Entry

__all__ = ["Location", "entries_by_id", "set_captions", "set_rejected"]


@dataclass(slots=True, kw_only=True)
class Location:
    """Where the captions of one image are."""

    entries: list[tuple[Document, Entry]] = field(default_factory=list)
    """Its records in data files."""
    picture: str | None = None
    """Its path in the folder, if it is an image in one."""
    beside: bool = False
    """Files beside it count: no data file has a caption for it."""
    usual: tuple[str, ...] = ()
    """Its captions when nobody wrote any: the name of kohya's folder."""


def entries_by_id(documents: Sequence[Document]) -> Iterator[tuple[str, Document, Entry]]:
    """The records of all documents; without those whose id is already that of another image."""
    owners: dict[str, Entry] = {}
    for document in documents:
        for entry in document.entries:
            owner = owners.setdefault(entry.id, entry)
            if owner.picture == entry.picture or not (owner.explicit_id or entry.explicit_id):
                yield entry.id, document, entry


def set_captions(entries: Sequence[tuple[Document, Entry]], captions: Sequence[str]) -> list[Document]:
    """Gives an image new captions in its data files: all in the first that has any, none in the others."""
    by_document: dict[int, tuple[Document, list[Entry]]] = {}
    for document, entry in entries:
        by_document.setdefault(id(document), (document, []))[1].append(entry)
    holders = [key for key, (_, own) in by_document.items() if any(entry.captions for entry in own)]
    home = holders[0] if holders else next(iter(by_document))
    changed = []
    for key, (document, own) in by_document.items():
        if key == home or key in holders:
            document.set_captions([entry.record for entry in own], captions if key == home else ())
            changed.append(document)
    return changed


def set_rejected(entries: Sequence[tuple[Document, Entry]], rejected: bool) -> list[Document]:
    """Marks the first record, or takes the mark from all."""
    chosen = entries[:1] if rejected else [pair for pair in entries if pair[1].rejected]
    for document, entry in chosen:
        document.set_rejected(entry.record, rejected)
    return [document for document, _ in chosen]
