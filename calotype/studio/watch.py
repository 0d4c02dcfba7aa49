"""`Watcher`: detects changes by other programs: added and removed images, edited captions, replaced image files."""

from __future__ import annotations

import gc
import os
import threading
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from calotype.config.inputs import image_folders, input_files
from calotype.core.file_state import FileState, file_holding
from calotype.errors import EditError, ManifestError
from calotype.manifest.file_kinds import CAPTION_SUFFIXES, DATA_SUFFIXES, IMAGE_SUFFIXES, METADATA
from calotype.studio.disk import Disk, Seen
from calotype.studio.edits import Editor
from calotype.studio.rows import Rows
from calotype.studio.source import LoadedRows, Source

__all__ = ["Watcher"]

_POLL_SECONDS: Final = 1.0
_MAX_POLL_SHARE: Final = 0.05
"""Maximum share of time spent on polling: the slower a poll, the less often it runs."""

_MAX_DOCUMENTS: Final = 1000
"""Data files in the folders that are compared in every look; of more, only metadata files."""
_DATA: Final = tuple(DATA_SUFFIXES)
_BY_ROW: Final = (*IMAGE_SUFFIXES, *CAPTION_SUFFIXES)
"""Suffixes of files that are compared once their row has been read."""


class Watcher:
    """Compares the disk with its last known state on each call of `look`.

    Args:
        source: The dataset.
        rows: Updated with the changes.
        editor: Its lock prevents comparisons during writes; its own writes are no changes of other programs.
    """

    def __init__(self, source: Source, rows: Rows, editor: Editor) -> None:
        self._source, self._rows, self._editor = source, rows, editor
        self._looking = threading.Lock()
        self._due = 0.0
        self._folders = [str(Path(folder).expanduser().absolute()) for folder in image_folders(source.config)]
        self._disk = Disk(self._folders)
        self._documents = set[str]()
        self._beside = False
        self._trouble: str | None = None
        rows.reader = self.read

    def start(self) -> LoadedRows:
        """Load the dataset.

        Raises:
            ManifestError: It can't be read.
        """
        with _without_garbage_collection():
            self._disk.start()
            for path in self._disk.files():
                if not path.lower().endswith(_BY_ROW):
                    self._disk.known(path)  # before the dataset is read: a change after it is noticed
            found = self._source.load()
            self._rows.add(found.ids, found.refs, found.states)
            self._loaded(found)
        return found

    def read(self, numbers: Sequence[int]) -> None:
        """Read the files of rows for the first time. Thread-safe."""
        stamps: dict[int, FileState | None] = {}
        wanted: dict[str, int] = {}
        for number in numbers:
            ref = self._rows.refs[number]
            stamps[number] = None if ref.path is None else self._disk.known(file_holding(ref.path, ref.key))
            if self._rows.captions_unread(number):
                wanted[self._rows.ids[number]] = number
        captions = self._source.captions
        if captions is None or not wanted:
            self._rows.set_read(stamps, {})
            return
        for id in wanted:
            for path in captions.files_beside(id):
                self._disk.known(path)  # before it is read: a change after it is noticed
        states = captions.read_beside(wanted)
        self._rows.set_read(stamps, {wanted[id]: state for id, state in states.items()})

    def look(self, shown: Iterable[int] = (), *, at_once: bool = False) -> None:
        """Poll for changes, unless another thread is polling, the last poll was recent, or captions are being written.

        Args:
            shown: Rows whose files are compared in any case.
            at_once: Poll regardless of all that, and compare all files.
        """
        if (time.monotonic() < self._due and not at_once) or not self._looking.acquire(blocking=at_once):
            return
        try:
            start = time.monotonic()
            # Without the editor's lock: edits do not wait for it.
            seen = self._disk.look([*self._documents, *self._files_of(shown)], every=at_once)
            if self._editor.lock.acquire(blocking=at_once):
                try:
                    self._compare(seen)
                finally:
                    self._editor.lock.release()
            self._due = start + max(_POLL_SECONDS, (time.monotonic() - start) / _MAX_POLL_SHARE)
        finally:
            self._looking.release()

    @contextmanager
    def expecting(self, numbers: Iterable[int]) -> Iterator[None]:
        """Within this context, changes of these rows are not reported as external changes."""
        self._editor.expected = frozenset(numbers)
        try:
            yield
        finally:
            self._editor.expected = frozenset()

    def _files_of(self, numbers: Iterable[int]) -> Iterator[str]:
        """Yield the image and the caption files of rows."""
        captions = self._source.captions if self._beside else None
        for number in numbers:
            if number < len(self._rows) and (path := self._rows.refs[number].path) is not None:
                yield path
                if captions is not None:
                    yield from captions.files_beside(self._rows.ids[number])

    def _compare(self, seen: Seen) -> None:
        """Update the rows from the files that other programs have changed."""
        written, self._editor.written = self._editor.written, {}
        self._documents |= {path for path in written if Path(path).name.lower() in METADATA}
        changed = self._disk.changed(seen, written)
        try:
            if changed:
                self._images(changed, seen.states)
                self._captions(changed, came_or_went=changed & (seen.came | seen.went))
            self._disk.accept(seen)
            self._trouble = None
        except (ManifestError, EditError) as error:
            # Possibly half written: the next poll reads it again.
            if str(error) != self._trouble:
                self._trouble = str(error)
                self._rows.notice(f"A change on disk can't be read: {error}")

    def _images(self, changed: set[str], stamps: Mapping[str, FileState | None]) -> None:
        """Update rows whose image file was replaced, removed or restored."""
        for number, ref in enumerate(list(self._rows.refs)):
            if ref.path is None or (file := file_holding(ref.path, ref.key)) not in changed:
                continue
            found = stamps.get(file)
            if found is None:
                self._editor.found(number, None)
            elif found != self._rows.stamp(number) or self._rows.missing(number):
                self._rows.set_stamp(number, found)
                self._rows.set_missing(number, False)
                self._rows.report(number, "image")

    def _captions(self, changed: set[str], *, came_or_went: set[str]) -> None:
        """Update edited captions, and add and remove rows."""
        images = {ref.path for ref in self._rows.refs}
        beside = _caption_files(changed, images)
        if not (changed - beside - images) and not (came_or_went & images):
            self._read_again(beside)  # only caption files of known images changed
            return
        found, captions = self._source.load(), self._source.captions
        refs = dict(zip(found.ids, found.refs, strict=True))
        states = None if found.states is None else dict(zip(found.ids, found.states, strict=True))
        if states is None:
            # Captions are beside the images, as before: those that have not changed are not read again.
            found_images = {ref.path for ref in found.refs}
            beside = _caption_files(changed, found_images)
            if not self._beside or changed - beside - images - found_images:
                assert captions is not None
                states = captions.read(found.ids)
        for number, id in enumerate(list(self._rows.ids)):
            if (ref := refs.pop(id, None)) is None:
                self._editor.found(number, None)
                continue
            if ref != self._rows.refs[number] or self._rows.missing(number):
                self._rows.set_ref(number, ref)
            if states is not None:
                self._editor.found(number, states.get(id))
        if states is None:
            self._read_again(beside)
        new = [id for id in refs if states is None or id in states]
        captions_of_new = None if states is None else [states[id] for id in new]
        for number in self._rows.add(new, [refs[id] for id in new], captions_of_new):
            self._rows.report(number, "new")
        self._loaded(found)

    def _loaded(self, found: LoadedRows) -> None:
        """Note what is compared in every look: the files that list the images."""
        self._beside = found.states is None
        local = [ref for ref in found.refs if ref.path is not None]
        images = {ref.path for ref in local}
        others = input_files(self._source.config, local, self._folders) or ()
        data = {path for path in self._disk.files() if path.lower().endswith(_DATA)}
        data -= _caption_files(data, images)
        if len(data) > _MAX_DOCUMENTS:
            data = {path for path in data if Path(path).name.lower() in METADATA}
        self._documents = {path for path in others if path not in images} | data
        for path in (*others, *data):
            self._disk.known(path)

    def _read_again(self, beside: set[str]) -> None:
        stems = {_stem(path) for path in beside} | {_stem(_stem(path)) for path in beside}
        ids = [id for id, ref in zip(self._rows.ids, self._rows.refs, strict=True) if _stem(ref.path or "") in stems]
        if self._source.captions is None or not ids:
            return
        states = self._source.captions.read(ids)
        for id in ids:
            number = self._rows.number_of(id)
            if number is not None and id in states:
                self._editor.found(number, states[id])


@contextmanager
def _without_garbage_collection() -> Iterator[None]:
    """A collection looks through the millions of objects of the rows, which all stay: a fifth of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _caption_files(paths: Iterable[str], images: Collection[str | None]) -> set[str]:
    """Return those of some paths that are caption files of images."""
    found = [path for path in paths if path.lower().endswith(CAPTION_SUFFIXES)]
    if not found:
        return set()
    bases = {_stem(path) for path in images if path is not None}
    return {path for path in found if (stem := _stem(path)) in bases or stem in images}


def _stem(path: str) -> str:
    return os.path.splitext(path)[0]  # noqa: PTH122
