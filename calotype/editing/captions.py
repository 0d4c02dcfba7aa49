"""`Captions`: reads and writes captions in place, whole rows at a time, without losing edits of other programs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import xxhash

from calotype.core.file_state import FileState, state_of
from calotype.core.small_files import require_regular
from calotype.editing.document import Document
from calotype.editing.hidden_folder import back_up, locked
from calotype.editing.locations import Location
from calotype.editing.open_document import open_document
from calotype.editing.replacement import digest_of, replacing
from calotype.editing.work import StoppedError, Work
from calotype.errors import EditError, ManifestError
from calotype.manifest.reading import Reading

__all__ = ["CaptionState", "Captions", "Change", "Written"]

_TRIES: Final = 8
"""Attempts at a write while another program saves the same files."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptionState:
    """The captions of an image on disk."""

    captions: tuple[str, ...]
    """In their order; may be empty."""
    rejected: bool
    """Whether the image is marked to be left out of the dataset."""
    version: str
    """Hash of the above: equal as long as nothing has changed."""
    problem: str | None = None
    """Why its captions can't be read or changed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A change of an image; None leaves a value as it is."""

    captions: Sequence[str] | None = None
    """The new captions. Blank ones, and line breaks at the end of one, are dropped."""
    rejected: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """The result of a `write`."""

    states: dict[str, CaptionState]
    """Row → its state now, for the rows that were written."""
    conflicts: dict[str, CaptionState | None]
    """Row → its state on disk, for the rows that were not as expected and were not written; None: it is gone."""
    backup: Path | None
    """Folder with copies of the files before the write."""
    files: dict[Path, FileState]
    """Written file → its state then, unless another program has written to it since."""
    stopped: bool = False
    """Whether it was cancelled: rows that are in neither `states` nor `conflicts` are as before."""


@dataclass(slots=True)
class _Plan:
    """The files that a write would replace."""

    conflicts: dict[str, CaptionState | None] = field(default_factory=dict)
    moved: set[str] = field(default_factory=set)
    """Rows that another program changed during planning."""
    own: dict[str, dict[Path, bytes]] = field(default_factory=dict)
    """Row → files beside its image → new contents."""
    documents: dict[Path, tuple[Document, set[str]]] = field(default_factory=dict)
    """Data file → its document, and the rows that change it."""
    found: dict[Path, bytes | None] = field(default_factory=dict)
    """File → hash of its contents; None: there is no such file."""

    def files(self) -> dict[Path, bytes]:
        """Return the new contents of each file."""
        files = {file: document.render() for file, (document, ids) in self.documents.items() if not ids & self.moved}
        for id, own in self.own.items():
            if id not in self.moved:
                files |= own
        return files


@dataclass(frozen=True, slots=True)
class _Replaced:
    """The result of replacing files."""

    failed: set[str] = field(default_factory=set)
    """Rows of files that other programs have changed since they were read."""
    states: dict[Path, FileState] = field(default_factory=dict)
    """The files that were replaced, with their states."""
    left: set[str] = field(default_factory=set)
    """Rows that were not written, because it was cancelled."""


@dataclass(frozen=True, slots=True)
class _Known:
    """A data file in memory."""

    state: FileState
    document: Document
    digest: bytes | None = None
    """`digest_of` its contents, if it was written here: no other program's change is written over even if the state of
    the file does not show it."""


class Captions(ABC):
    """The captions of a dataset in place. `open_captions` returns it.

    A change is applied as a whole or not at all, waits for other processes that change the same folder, and leaves the
    rest as it is: other columns, their order, lines that can't be read.
    """

    root: Path
    """Folder that ids are relative to, with the hidden folder `.calotype` for backups."""
    takes_sidecars: bool
    """Whether `write` can also write caption files beside the images."""

    @property
    def one_row_per_image(self) -> bool:
        """Whether the rows are exactly the images of the folder, with their paths as ids."""
        return False

    def __init__(self, reading: Reading) -> None:
        self._reading = reading
        self._documents: dict[Path, _Known] = {}

    def read(
        self, ids: Iterable[str] | None = None, *, loaded: Mapping[str, Sequence[str]] | None = None
    ) -> dict[str, CaptionState]:
        """Read the state of every image by its id, in the manifest's order, rejected ones included.

        Args:
            ids: Read these images only, as far as they exist.
            loaded: Row id → its captions in a manifest that was loaded just now: the file beside an image is not read
                a second time.

        Raises:
            ManifestError: A data file can't be read.
        """
        locations = self._locations()
        wanted = locations if ids is None else [id for id in ids if id in locations]
        known = loaded or {}
        return {id: self._state(locations[id], known.get(id, ())) for id in wanted}

    def ids(self) -> list[str]:
        """Return the ids of all images, in the manifest's order, without reading captions.

        Raises:
            ManifestError: A data file can't be read.
        """
        return list(self._locations())

    def files_beside(self, id: str) -> list[str]:
        """Return the caption files beside an image, as they were listed last."""
        return []

    def read_beside(self, ids: Iterable[str]) -> dict[str, CaptionState]:
        """Read images whose captions are in these files only, without looking for new files. Thread-safe."""
        return self.read(ids)

    def write(
        self,
        changes: Mapping[str, Sequence[str] | Change],
        *,
        expect: Mapping[str, str] | None = None,
        backup: bool = False,
        sidecars: bool = False,
        work: Work | None = None,
    ) -> Written:
        """Change rows. Those that are not as expected are not written, and are returned as conflicts.

        Args:
            changes: Row id → its new captions, or a `Change`.
            expect: Row id → the `version` of its `CaptionState` when it was read. Rows that are not in it are written
                in any case.
            backup: Copy the files that will change to `root/.calotype/backups` first.
            sidecars: Also write a `.txt` file beside each image whose captions are in a metadata file.
            work: Shows progress, and can cancel it: a row is written as a whole or not at all.

        Raises:
            EditError: The form of the data can't hold a caption, or nothing can be written here. Nothing was changed,
                unless the disk failed during the write: then each file is either as before or complete.
            ManifestError: A data file can't be read.
        """
        with locked(self.root):
            return self._write(changes, expect or {}, backup=backup, sidecars=sidecars, work=work or Work())

    def reject(self, ids: Sequence[str], rejected: bool = True, *, expect: Mapping[str, str] | None = None) -> Written:
        """Mark rows as rejected, or remove the mark. The manifest leaves them out; nothing is deleted."""
        return self.write({id: Change(rejected=rejected) for id in ids}, expect=expect)

    def _write(
        self,
        changes: Mapping[str, Sequence[str] | Change],
        expect: Mapping[str, str],
        *,
        backup: bool,
        sidecars: bool,
        work: Work,
    ) -> Written:
        """Plan and replace, and repeat for the rows whose files another program saved in between."""
        conflicts: dict[str, CaptionState | None] = {}
        pending, written, folder, stopped = dict(changes), set[str](), None, False
        written_files: dict[Path, FileState] = {}
        for _ in range(_TRIES):
            try:
                plan = self._plan(pending, expect, self._locations(), sidecars=sidecars, work=work)
                files = plan.files()
                if backup and any(file.exists() for file in files):
                    folder = back_up(files, self.root, folder, work=work)
                replaced = self._replace(plan, files, work) if files else _Replaced()
            except StoppedError:  # before a file was replaced
                pending, stopped = {}, True
                break
            conflicts |= plan.conflicts
            written |= plan.own.keys() - replaced.left
            written_files |= replaced.states
            stopped = bool(replaced.left)
            pending = {id: changes[id] for id in pending if id in (replaced.failed | plan.moved) - replaced.left}
            if not pending or stopped:
                break
        after = self._locations_after(written_files) if written or pending else {}
        found = {id: self._state(after[id]) for id in {*written, *pending} if id in after}
        conflicts |= {id: found.get(id) for id in pending}
        return Written(
            states={id: found[id] for id in changes if id in found and id not in conflicts},
            conflicts=conflicts,
            backup=folder,
            files=written_files,
            stopped=stopped,
        )

    def _plan(
        self,
        changes: Mapping[str, Sequence[str] | Change],
        expect: Mapping[str, str],
        locations: Mapping[str, Location],
        *,
        sidecars: bool,
        work: Work,
    ) -> _Plan:
        """Compute the new contents of files, and hash the present ones."""
        plan = _Plan()

        # The rows that are as expected.
        wanted: dict[str, tuple[Change, str]] = {}
        listed = list(changes.items())
        for part in work.parts("reading captions", len(listed)):
            for id, change_or_captions in listed[part]:
                state = self._state(locations[id]) if id in locations else None
                if state is None or expect.get(id, state.version) != state.version:
                    plan.conflicts[id] = state
                    continue
                if state.problem is not None:
                    raise EditError(state.problem)
                wanted[id] = _cleaned(change_or_captions), state.version

        # Their changes: of documents in memory, and of files beside images.
        try:
            rows = list(wanted.items())
            for part in work.parts("changing captions", len(rows)):
                for id, (change, version) in rows[part]:
                    own: dict[Path, bytes] = {}
                    documents = self._change(locations[id], change, own, sidecars=sidecars)
                    found = {file: digest_of(file) for file in own}
                    for document in documents:
                        plan.documents.setdefault(document.file, (document, set()))[1].add(id)
                    if locations[id].beside and self._state(locations[id]).version != version:
                        plan.moved.add(id)  # changed since it was compared
                        continue
                    plan.own[id] = own
                    plan.found |= found
            for file, (_, ids) in plan.documents.items():
                known = self._documents.get(file)
                plan.found[file] = None if known is None else known.digest or digest_of(file)
                if ids & plan.moved or (known is not None and known.state != state_of(file.stat())):
                    plan.moved |= ids  # the document in memory lacks the other program's change
        finally:
            self._documents.clear()  # they are changed in memory
        return plan

    def _replace(self, plan: _Plan, files: Mapping[Path, bytes], work: Work) -> _Replaced:
        """Replace files.

        Raises:
            StoppedError: It was cancelled before a file was replaced.
        """
        failed: set[str] = set()
        in_documents = set[str]().union(*(ids for _, ids in plan.documents.values()))
        rows, done = list(plan.own.items()), 0
        with replacing(files, plan.found, self.root, work=work) as new:
            for file, (_, ids) in plan.documents.items():
                if file in files and not new.put([file]):
                    failed |= ids
            with suppress(StoppedError):
                for part in work.parts("replacing files", len(rows)):
                    for id, own in rows[part]:
                        paths = [file for file in own if file in files]
                        # The text beside an image whose captions are in a document is a copy: another program's change
                        # of it is kept, and does not fail the row.
                        if id not in failed and not new.put(paths) and id not in in_documents:
                            failed.add(id)
                    done = part.stop
            left = {id for id, _ in rows[done:]} - in_documents
            late = set(new.put_back_late())
            for file, (_, ids) in plan.documents.items():
                failed |= ids if file in late else set()
            failed |= {id for id, own in plan.own.items() if late & own.keys() and id not in in_documents}
            states = new.states()
        # Documents in memory that are what is on disk now are not read again.
        for file, (document, _) in plan.documents.items():
            if file in states and document.settle():
                self._documents[file] = _Known(states[file], document, digest_of(files[file]))
        return _Replaced(failed, states, left)

    @abstractmethod
    def _locations(self) -> Mapping[str, Location]:
        """Return where the captions of every image are at present."""

    @abstractmethod
    def _locations_after(self, files: Iterable[Path]) -> Mapping[str, Location]:
        """The same after a write of these files, as far as only they have changed."""

    @abstractmethod
    def _change(
        self, location: Location, change: Change, files: dict[Path, bytes], *, sidecars: bool
    ) -> list[Document]:
        """Change documents, which are returned, and add other files and their new contents to `files`."""

    def _read_beside(self, location: Location, loaded: Sequence[str]) -> list[str]:
        """Read the captions in files beside an image; `loaded`: see `read`."""
        return []

    def _state(self, location: Location, loaded: Sequence[str] = ()) -> CaptionState:
        captions = [text for _, entry in location.entries for text in entry.captions]
        problem = None
        if location.beside:
            try:
                captions += self._read_beside(location, loaded)
            except EditError as error:
                problem = str(error)
        captions = captions or list(location.default)
        rejected = any(entry.rejected for _, entry in location.entries)
        hasher = xxhash.xxh3_64(repr((rejected, problem)).encode())
        for text in captions:
            hasher.update(len(text).to_bytes(8, "little") + text.encode("utf-8", "surrogatepass"))
        return CaptionState(captions=tuple(captions), rejected=rejected, version=hasher.hexdigest(), problem=problem)

    def _document(self, file: Path) -> Document:
        """Return the document of a file, which is read again only if the file has changed."""
        try:
            require_regular(file)
            state = state_of(file.stat())
        except OSError as error:
            raise ManifestError(f"{file}: can't be read: {error.strerror}") from None
        known = self._documents.get(file)
        if known is None or known.state != state:
            known = self._documents[file] = _Known(state, open_document(file, self._reading))
        return known.document


def _cleaned(change: Sequence[str] | Change) -> Change:
    """Drop blank captions, and line breaks at the end of captions."""
    if isinstance(change, str):
        raise TypeError(f"captions must be a list of texts, not the text {change!r}")
    change = change if isinstance(change, Change) else Change(captions=change)
    if change.captions is None:
        return change
    texts = tuple(text.rstrip("\r\n") for text in change.captions)
    return Change(captions=tuple(text for text in texts if text.strip()), rejected=change.rejected)
