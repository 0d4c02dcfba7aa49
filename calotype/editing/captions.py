"""`Captions`: what every form of data lets be read and changed, whole rows at a time and with nobody's work lost."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import xxhash

from calotype.core.file_state import FileState, state_of
from calotype.core.small_files import require_regular
from calotype.editing.delimited_document import DelimitedDocument
from calotype.editing.document import Document
from calotype.editing.hidden_folder import back_up, locked
from calotype.editing.json_document import open_json
from calotype.editing.locations import Location
from calotype.editing.replacement import digest_of, replacing
from calotype.errors import EditError, ManifestError
from calotype.manifest.reading import Reading

__all__ = ["CaptionState", "Captions", "Change", "Written"]

_TRIES: Final = 8
"""Times that a change is planned again because another program saves the same files meanwhile."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptionState:
    """What an image has on the disk."""

    captions: tuple[str, ...]
    """In their order; none when it has none."""
    rejected: bool
    """It is left out of the dataset, by someone's choice."""
    version: str
    """Of all of the above: equal while nobody has changed it."""
    problem: str | None = None
    """Why its captions can't be read or changed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What is to become of an image; what is None stays."""

    captions: Sequence[str] | None = None
    """The new ones. Blank ones are none, and line breaks at an end are not kept."""
    rejected: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """What came of a `write`."""

    states: dict[str, CaptionState]
    """Of the rows that were written, as they are now."""
    conflicts: dict[str, CaptionState | None]
    """Rows that are on the disk as nobody expected them, and were left so; None: gone."""
    backup: Path | None
    """Folder with the files as they were."""


@dataclass(slots=True)
class _Plan:
    """What a change would write."""

    conflicts: dict[str, CaptionState | None] = field(default_factory=dict)
    moved: set[str] = field(default_factory=set)
    """Rows that another program has changed while they were planned."""
    own: dict[str, dict[Path, bytes]] = field(default_factory=dict)
    """Row → the files beside its image, and what they are to hold."""
    documents: dict[Path, tuple[Document, set[str]]] = field(default_factory=dict)
    """Data file → its document, and the rows that change it."""
    found: dict[Path, bytes | None] = field(default_factory=dict)
    """File → hash of what it holds."""

    def files(self) -> dict[Path, bytes]:
        """Files and what they are to hold."""
        files = {file: document.render() for file, (document, ids) in self.documents.items() if not ids & self.moved}
        for id, own in self.own.items():
            if id not in self.moved:
                files |= own
        return files


class Captions(ABC):
    """The captions of a dataset where they are. Made by `open_captions`.

    Every change is whole or not at all, waits for other programs that change the same, and leaves alone what is not
    its own: other columns, their order, lines that can't be read.
    """

    root: Path
    """Folder that ids are relative to, and in which `.calotype` holds backups."""
    takes_sidecars: bool
    """Whether `write` can also write files beside the images."""

    def __init__(self, reading: Reading) -> None:
        self._reading = reading
        self._documents: dict[Path, tuple[FileState, Document]] = {}

    def read(self, ids: Iterable[str] | None = None) -> dict[str, CaptionState]:
        """Every image of the manifest by its id, in its order; rejected ones too.

        Args:
            ids: Only these, as far as they are there: spares the reading of files beside the other images.

        Raises:
            ManifestError: A data file can't be read.
        """
        places = self._places()
        wanted = places if ids is None else [id for id in ids if id in places]
        return {id: self._state(places[id]) for id in wanted}

    def write(
        self,
        changes: Mapping[str, Sequence[str] | Change],
        *,
        expect: Mapping[str, str] | None = None,
        backup: bool = False,
        sidecars: bool = False,
    ) -> Written:
        """Changes rows. Those that are not as expected are left as they are, and given back.

        Args:
            changes: Row id → its new captions, or a `Change`.
            expect: Row id → the `version` that its `CaptionState` had when it was read. A row that is not named is
                written whatever it holds.
            backup: Copy the files that will change, as they are, to `root/.calotype/backups` first.
            sidecars: Also write a `.txt` file beside each image that a metadata file has the captions of.

        Raises:
            EditError: The form of the data can't hold a caption, or nothing can be written here. Nothing was changed,
                unless the disk failed in the middle: then each file is as before or as asked, whole.
            ManifestError: A data file can't be read.
        """
        with locked(self.root):
            return self._write(changes, expect or {}, backup=backup, sidecars=sidecars)

    def reject(self, ids: Sequence[str], rejected: bool = True, *, expect: Mapping[str, str] | None = None) -> Written:
        """Marks rows as rejected, or takes the mark away: the manifest leaves them out; nothing is ever deleted."""
        return self.write({id: Change(rejected=rejected) for id in ids}, expect=expect)

    def _write(
        self, changes: Mapping[str, Sequence[str] | Change], expect: Mapping[str, str], *, backup: bool, sidecars: bool
    ) -> Written:
        """Plan and put, and again for the rows whose files another program has saved in between."""
        conflicts: dict[str, CaptionState | None] = {}
        waiting, wanted, kept = dict(changes), set[str](), None
        for _ in range(_TRIES):
            places = self._places()
            plan = self._plan(waiting, expect, places, sidecars=sidecars)
            conflicts |= plan.conflicts
            wanted |= plan.own.keys()
            files = plan.files()
            if backup and any(file.exists() for file in files):
                kept = back_up(files, self.root, kept)
            again = self._put(plan, files) if files else set()
            waiting = {id: changes[id] for id in waiting if id in again | plan.moved}
            if not waiting:
                break
        after = self._places() if wanted or waiting else {}
        states = {id: self._state(after[id]) for id in {*wanted, *waiting} if id in after}
        conflicts |= {id: states.get(id) for id in waiting}
        return Written(
            states={id: states[id] for id in changes if id in states and id not in conflicts},
            conflicts=conflicts,
            backup=kept,
        )

    def _plan(
        self,
        changes: Mapping[str, Sequence[str] | Change],
        expect: Mapping[str, str],
        places: Mapping[str, Location],
        *,
        sidecars: bool,
    ) -> _Plan:
        """What files must hold, and what they hold now."""
        plan = _Plan()
        wanted: dict[str, tuple[Change, str]] = {}
        for id, asked in changes.items():
            state = self._state(places[id]) if id in places else None
            if state is None or expect.get(id, state.version) != state.version:
                plan.conflicts[id] = state
                continue
            if state.problem is not None:
                raise EditError(state.problem)
            wanted[id] = _cleaned(asked), state.version
        try:
            for id, (change, version) in wanted.items():
                own: dict[Path, bytes] = {}
                documents = self._change(places[id], change, own, sidecars=sidecars)
                found = {file: digest_of(file) for file in own}
                for document in documents:
                    plan.documents.setdefault(document.file, (document, set()))[1].add(id)
                if places[id].beside and self._state(places[id]).version != version:
                    plan.moved.add(id)  # between two looks
                    continue
                plan.own[id] = own
                plan.found |= found
            for file, (_, ids) in plan.documents.items():
                known = self._documents.get(file)
                plan.found[file] = digest_of(file) if known is not None else None
                if ids & plan.moved or (known is not None and known[0] != state_of(file.stat())):
                    plan.moved |= ids  # what others change in a document is in memory only
        finally:
            self._documents.clear()  # some are changed in memory
        return plan

    def _put(self, plan: _Plan, files: Mapping[Path, bytes]) -> set[str]:
        """Replace files, and name the rows of those that others have changed since they were read."""
        left: set[str] = set()
        in_documents = set[str]().union(*(ids for _, ids in plan.documents.values()))
        with replacing(files, plan.found, self.root) as new:
            for file, (_, ids) in plan.documents.items():
                if file in files and not new.put([file]):
                    left |= ids
            for id, own in plan.own.items():
                paths = [file for file in own if file in files]
                # The text beside an image whose captions are in a document is a copy: if another program has changed
                # it, it is that program's.
                if id not in left and not new.put(paths) and id not in in_documents:
                    left.add(id)
            late = set(new.put_back_late())
            for file, (_, ids) in plan.documents.items():
                left |= ids if file in late else set()
            left |= {id for id, own in plan.own.items() if late & own.keys() and id not in in_documents}
        return left

    @abstractmethod
    def _places(self) -> dict[str, Location]:
        """Where the captions of every image are, as of now."""

    @abstractmethod
    def _change(self, place: Location, change: Change, files: dict[Path, bytes], *, sidecars: bool) -> list[Document]:
        """Changes documents, which it gives back, and adds other files to `files`."""

    def _beside(self, place: Location) -> list[str]:
        """Captions in files beside the image."""
        return []

    def _state(self, place: Location) -> CaptionState:
        captions = [text for _, entry in place.entries for text in entry.captions]
        problem = None
        if place.beside:
            try:
                captions += self._beside(place)
            except EditError as error:
                problem = str(error)
        captions = captions or list(place.usual)
        rejected = any(entry.rejected for _, entry in place.entries)
        hasher = xxhash.xxh3_64(repr((rejected, problem)).encode())
        for text in captions:
            hasher.update(len(text).to_bytes(8, "little") + text.encode("utf-8", "surrogatepass"))
        return CaptionState(captions=tuple(captions), rejected=rejected, version=hasher.hexdigest(), problem=problem)

    def _document(self, file: Path) -> Document:
        """The document of a file, read anew only when the file has changed."""
        try:
            require_regular(file)
            state = state_of(file.stat())
        except OSError as error:
            raise ManifestError(f"{file}: can't be read: {error.strerror}") from None
        known = self._documents.get(file)
        if known is None or known[0] != state:
            known = (state, _open(file, self._reading))
            self._documents[file] = known
        return known[1]


_WRITTEN: Final = {".jsonl", ".ndjson", ".json", ".csv", ".tsv"}


def _open(file: Path, reading: Reading) -> Document:
    """The document of a data file.

    Raises:
        EditError: Its form can't be changed in place.
        ManifestError: It can't be read.
    """
    suffix = file.suffix.lower()
    if suffix not in _WRITTEN or not file.is_file():
        raise EditError(
            f"{file}: captions in {suffix[1:] or 'this form'} can't be changed in place; `calotype convert {file} "
            "NEW_FOLDER --to jsonl` makes a data file of it, whose captions can"
        )
    if file.stat().st_size == 0:
        raise ManifestError(f"{file}: the file is empty")
    return DelimitedDocument(file, reading) if suffix in (".csv", ".tsv") else open_json(file, reading)


def _cleaned(asked: Sequence[str] | Change) -> Change:
    if isinstance(asked, str):
        raise TypeError(f"captions must be a list of texts, not the text {asked!r}")
    change = asked if isinstance(asked, Change) else Change(captions=asked)
    if change.captions is None:
        return change
    texts = tuple(text.rstrip("\r\n") for text in change.captions)
    return Change(captions=tuple(text for text in texts if text.strip()), rejected=change.rejected)
