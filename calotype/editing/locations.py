"""`Location`: where the captions of an image are, in records of data files or in files beside it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from calotype.editing.document import Document, Entry

__all__ = ["Location", "entries_by_id", "set_captions", "set_rejected"]


@dataclass(slots=True, kw_only=True)
class Location:
    """Where the captions of one image are."""

    entries: list[tuple[Document, Entry]] = field(default_factory=list)
    """The image's records in data files."""
    image: str | None = None
    """Its path, if it is in a folder of images."""
    beside: bool = False
    """Whether files beside it are read: no data file has a caption for it."""
    default: tuple[str, ...] = ()
    """Its captions if there are no others: the class name of kohya's folder."""


def entries_by_id(documents: Sequence[Document]) -> Iterator[tuple[str, Document, Entry]]:
    """Yield the records of all documents, except those whose id is already another image's."""
    owners: dict[str, Entry] = {}
    for document in documents:
        for entry in document.entries:
            owner = owners.setdefault(entry.id, entry)
            if owner.image == entry.image or not (owner.explicit_id or entry.explicit_id):
                yield entry.id, document, entry


def set_captions(entries: Sequence[tuple[Document, Entry]], captions: Sequence[str]) -> list[Document]:
    """Set an image's captions in its data files: all in the first that has any, none in the others."""
    by_document: dict[int, tuple[Document, list[Entry]]] = {}
    for document, entry in entries:
        by_document.setdefault(id(document), (document, []))[1].append(entry)
    captioned = [key for key, (_, own) in by_document.items() if any(entry.captions for entry in own)]
    target = captioned[0] if captioned else next(iter(by_document))
    changed = []
    for key, (document, own) in by_document.items():
        if key == target or key in captioned:
            document.set_captions([entry.record for entry in own], captions if key == target else ())
            changed.append(document)
    return changed


def set_rejected(entries: Sequence[tuple[Document, Entry]], rejected: bool) -> list[Document]:
    """Mark the first record as rejected, or remove the mark from all."""
    chosen = entries[:1] if rejected else [pair for pair in entries if pair[1].rejected]
    for document, entry in chosen:
        document.set_rejected(entry.record, rejected)
    return [document for document, _ in chosen]
