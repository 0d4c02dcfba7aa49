"""`Watcher`: detects changes by other programs: added and removed images, edited captions, replaced image files."""

from __future__ import annotations

import gc
import os
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from calotype.config.inputs import image_folders, input_files
from calotype.core.file_state import FileState, file_holding, file_state
from calotype.errors import EditError, ManifestError
from calotype.manifest.file_kinds import CAPTION_SUFFIXES
from calotype.studio.edits import Editor
from calotype.studio.rows import Rows
from calotype.studio.source import LoadedRows, Source
from calotype.types import ImageRef

__all__ = ["Watcher"]

_POLL_SECONDS: Final = 1.0
_MAX_POLL_SHARE: Final = 0.05
"""Maximum share of time spent on polling: the slower a poll, the less often it runs."""

Stamps = dict[str, FileState]


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
        self._files: tuple[str, ...] = ()
        self._trouble: str | None = None
        self._stamps: Stamps = {}

    def start(self) -> LoadedRows:
        """Load the dataset.

        Raises:
            ManifestError: It can't be read.
        """
        with _without_garbage_collection():
            self._stamps = self._scan()
            found = self._source.load()
            self._rows.add(found.ids, found.refs, found.states, self._stamps)
            self._files = self._others(found.refs)
            self._stamps |= _stamps_of(self._files)
        return found

    def look(self, *, at_once: bool = False) -> None:
        """Poll for changes, unless another thread is polling or the last poll was recent.

        Args:
            at_once: Poll regardless of both.
        """
        if (time.monotonic() < self._due and not at_once) or not self._looking.acquire(blocking=at_once):
            return
        try:
            start = time.monotonic()
            stamps = self._scan() | _stamps_of(self._files)  # without the editor's lock: edits do not wait for it
            with self._editor.lock:
                self._compare(stamps)
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

    def _compare(self, stamps: Stamps) -> None:
        """Update the rows from the files that other programs have changed."""
        written, self._editor.written = self._editor.written, {}
        self._stamps |= written
        for path in written:  # possibly written after they were scanned
            stamps.pop(path, None)
        stamps |= _stamps_of(written)
        before, self._stamps = self._stamps, stamps
        changed = {path for path, stamp in stamps.items() if before.get(path) != stamp}
        changed |= before.keys() - stamps.keys()
        if not changed:
            return
        try:
            self._images(changed, stamps)
            self._captions(changed, came_or_went=changed & (before.keys() ^ stamps.keys()))
            self._trouble = None
        except (ManifestError, EditError) as error:
            # Possibly half written: the next poll reads it again.
            self._stamps = before
            if str(error) != self._trouble:
                self._trouble = str(error)
                self._rows.notice(f"A change on disk can't be read: {error}")

    def _images(self, changed: set[str], stamps: Mapping[str, FileState]) -> None:
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
        bases = {_stem(path) for path in images if path is not None} | images
        beside = {path for path in changed if path.lower().endswith(CAPTION_SUFFIXES) and _stem(path) in bases}
        if not (changed - beside - images) and not (came_or_went & images):
            self._read_again(beside)  # only caption files of known images changed
            return
        found = self._source.load()
        there = {id: index for index, id in enumerate(found.ids)}
        refs, states = found.refs, found.states
        for number, id in enumerate(list(self._rows.ids)):
            if (index := there.pop(id, None)) is None:
                self._editor.found(number, None)
                continue
            self._rows.set_ref(number, refs[index])
            self._editor.found(number, states[index])
        new = list(there.values())
        added = self._rows.add(
            list(there), [refs[index] for index in new], [states[index] for index in new], self._stamps
        )
        for number in added:
            self._rows.report(number, "new")
        self._files = self._others(refs)
        self._stamps |= _stamps_of(self._files)

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

    def _scan(self) -> Stamps:
        return dict(entry for folder in self._folders for entry in _walk(folder))

    def _others(self, refs: Sequence[ImageRef]) -> tuple[str, ...]:
        """Return data files and images outside of the watched folders."""
        local = [ref for ref in refs if ref.path is not None]
        return input_files(self._source.config, local, self._folders) or ()


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


def _walk(folder: str) -> Iterator[tuple[str, FileState]]:
    """Yield all files below a folder except hidden ones; cyclic links are followed once."""
    seen: set[tuple[int, int]] = set()
    stack = [folder]
    while stack:
        path = stack.pop()
        try:
            info = os.stat(path)  # noqa: PTH116 - plain calls: this runs for every file, every second
            if (info.st_dev, info.st_ino) in seen:
                continue
            seen.add((info.st_dev, info.st_ino))
            with os.scandir(path) as entries:
                for entry in entries:
                    if entry.name.startswith("."):
                        continue
                    if entry.is_dir():
                        stack.append(entry.path)
                    elif (found := file_state(entry.path)) is not None:
                        yield entry.path, found
        except OSError:
            continue  # removed meanwhile


def _stamps_of(files: Iterable[str]) -> Stamps:
    return {file: found for file in files if (found := file_state(file)) is not None}


def _stem(path: str) -> str:
    return os.path.splitext(path)[0]  # noqa: PTH122
