"""The cache folder: Arrow files that are cheap to map again and safe to delete."""

from __future__ import annotations

import atexit
import io
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import xxhash

from calotype.core.file_state import file_state
from calotype.core.home import cache_folder
from calotype.errors import ManifestError

__all__ = ["UnwritableError", "cached", "cached_table", "map_arrow", "trouble", "write_arrow"]

_ENDS = 8 << 10
"""Bytes of each end of a source that its key depends on: an Arrow file's schema and footer, LMDB's meta pages."""

Make = Callable[[], tuple[pa.Schema, Iterable[pa.RecordBatch]]]


class UnwritableError(Exception):
    """Neither the cache nor the folder of temporary files takes a file."""


def cached(kind: str, sources: Iterable[Path], make: Make, note: str = "") -> Path:
    """The Arrow file made from `sources`: made once, and anew when one of them changes.

    It lies in the cache; where that can't be written, in a folder that is gone when this process ends.

    Args:
        kind: Sub-folder of the cache.
        sources: The files it is made from.
        make: Gives schema and batches when the file is not there yet; called again when writing them failed.
        note: What else the content depends on.

    Raises:
        ManifestError: There is room for it nowhere.
    """
    name = _key(sources, note)
    try:
        return _find(kind, name) or write_arrow(kind, make, name)
    except UnwritableError as error:
        raise ManifestError(str(error)) from None


def cached_table(kind: str, sources: Iterable[Path], make: Make, note: str = "") -> pa.Table:
    """The table of the file that `cached` gives; in memory where there is room for a file nowhere."""
    name = _key(sources, note)
    try:
        return map_arrow(_find(kind, name) or write_arrow(kind, make, name))
    except UnwritableError:
        schema, batches = make()
        return pa.Table.from_batches(batches, schema)


def map_arrow(path: Path) -> pa.Table:
    """The table of an uncompressed Arrow file, its buffers being the mapped file itself.

    Raises:
        FileNotFoundError: There is no such file.
        pa.ArrowInvalid: It is damaged.
    """
    with pa.memory_map(str(path)) as mapped, pa.ipc.open_file(mapped) as reader:
        return reader.read_all()


def write_arrow(kind: str, make: Make, name: str | None = None) -> Path:
    """Writes an uncompressed Arrow file into the cache; where that can't be written, into a temporary folder.

    Args:
        kind: Sub-folder of the cache.
        make: Gives schema and batches; called again when writing them failed.
        name: Of the file, without its suffix: it is flushed to disk, to be found later. None: the content's hash.

    Raises:
        UnwritableError: Neither takes it.
    """
    home = cache_folder(kind)
    try:
        return _write(lambda: home, make, name)
    except _FolderError as error:
        problem = f"the cache {home} can't be written ({error})"
    advice = "set CALOTYPE_CACHE to a folder that has room"
    try:
        path = _write(_temporary.make, make, name)
    except _FolderError as error:
        problem = f"{problem}, nor can a temporary folder ({error}); {advice}"
        _troubles.setdefault(home.parent, problem)
        raise UnwritableError(problem) from None
    _troubles.setdefault(home.parent, f"{problem}: {path.parent} is used until this process ends; {advice}")
    return path


def trouble() -> str | None:
    """Why this process could not use the cache, for a note; None while it could."""
    return _troubles.get(cache_folder("any").parent)


_troubles: dict[Path, str] = {}
"""Cache folder → what is wrong with it."""


class _Temporary:
    """A folder that goes away with the process that made it."""

    place: Path | None = None

    def make(self) -> Path:
        if self.place is None:
            self.place = Path(tempfile.mkdtemp(prefix="calotype-"))
            atexit.register(self._remove, os.getpid(), self.place)
        return self.place

    @staticmethod
    def _remove(owner: int, folder: Path) -> None:
        if owner == os.getpid():  # and not a forked child of it
            shutil.rmtree(folder, ignore_errors=True)


_temporary = _Temporary()


class _FolderError(Exception):
    """A folder can't be made, or takes no file."""


class _Sink(io.RawIOBase):
    """Writes to a file and hashes what goes by; keeps its own failure, which is not that of what is written."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.hasher = xxhash.xxh3_128()
        self.failure: OSError | None = None

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        try:
            written = self.file.write(data)
        except OSError as error:
            self.failure = error
            raise
        self.hasher.update(data)
        return written

    def finish(self, *, durable: bool) -> None:
        try:
            self.file.flush()
            if durable:
                os.fsync(self.file.fileno())
        except OSError as error:
            self.failure = error
            raise


def _write(folder_of: Callable[[], Path], make: Make, name: str | None) -> Path:
    """Writes the file under a temporary name, then renames it."""
    try:
        folder = folder_of()
        folder.mkdir(parents=True, exist_ok=True)
        folder = folder.resolve()
        handle, temporary = tempfile.mkstemp(dir=folder, prefix=".writing-")
    except OSError as error:
        raise _FolderError(error.strerror or str(error)) from None
    sink = _Sink(os.fdopen(handle, "wb"))
    try:
        with sink.file:
            schema, batches = make()
            with pa.ipc.new_file(sink, schema) as writer:
                for batch in batches:
                    writer.write_batch(batch)
            sink.finish(durable=name is not None)
        target = folder / f"{name or sink.hasher.hexdigest()}.arrow"
        Path(temporary).replace(target)
    except Exception:
        if sink.failure is not None:
            raise _FolderError(sink.failure.strerror or str(sink.failure)) from None
        raise
    finally:
        Path(temporary).unlink(missing_ok=True)
    return target


def _find(kind: str, name: str) -> Path | None:
    """The file of this name, if it is there whole."""
    for folder in (cache_folder(kind), _temporary.place):
        path = None if folder is None else folder / f"{name}.arrow"
        try:
            if path is not None and path.exists():
                map_arrow(path)
                return path.resolve()
        except (pa.ArrowInvalid, OSError):
            continue  # damaged: it is written anew
    return None


def _key(sources: Iterable[Path], note: str) -> str:
    states = [(str(source), file_state(source), _ends(source)) for source in sources]
    return xxhash.xxh3_128_hexdigest(json.dumps([states, note]).encode("utf-8", "surrogatepass"))


def _ends(source: Path) -> str:
    """A hash of the first and the last bytes of a file."""
    with source.open("rb", buffering=0) as file:
        head = file.read(_ENDS)
        file.seek(max(0, file.seek(0, os.SEEK_END) - _ENDS))
        return xxhash.xxh3_128_hexdigest(head + file.read(_ENDS))
