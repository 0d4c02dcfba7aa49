"""The cache on disk: Arrow files, which are cheap to map and safe to delete."""

from __future__ import annotations

import atexit
import io
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import xxhash

from calotype.core.atomic import new_file
from calotype.core.cache_folder import cache_folder
from calotype.core.file_state import file_state
from calotype.errors import ManifestError

__all__ = ["UnwritableError", "cache_problem", "cached", "cached_rows", "map_arrow", "write_arrow"]

_ENDS = 8 << 10
"""Bytes at each end of a source that are hashed into its key: an Arrow file's schema and footer, LMDB's meta pages."""

Make = Callable[[], tuple[pa.Schema, Iterable[pa.RecordBatch]]]


class UnwritableError(Exception):
    """A file can be written neither to the cache nor to a temporary folder."""


def cached(kind: str, sources: Iterable[Path], make: Make, note: str = "") -> Path:
    """Return the Arrow file made from `sources`; it is made again when one of them changes.

    The file is in the cache, or in a temporary folder until this process ends if the cache can't be written.

    Args:
        kind: Sub-folder of the cache.
        sources: The files that it is made from.
        make: Returns schema and batches; called when there is no such file, and again if writing it failed.
        note: What else the content depends on.

    Raises:
        ManifestError: Neither the cache nor a temporary folder can be written.
    """
    name = _key(sources, note)
    try:
        return _find(kind, name) or write_arrow(kind, make, name)
    except UnwritableError as error:
        raise ManifestError(str(error)) from None


def cached_rows(
    kind: str, source: Path, schema: pa.Schema, scan: Callable[[], Sequence[tuple[Any, ...]]], note: str
) -> pa.Table:
    """Return a table made from a file, as `cached` does; in memory if no file can be written.

    Args:
        kind: Sub-folder of the cache.
        source: The file that it is made from.
        schema: The table's columns.
        scan: Returns the rows.
        note: What else the content depends on.
    """
    name = _key([source], note)

    def make() -> tuple[pa.Schema, Iterable[pa.RecordBatch]]:
        columns = list(zip(*scan(), strict=True)) or [()] * len(schema)
        arrays = [pa.array(values, field.type) for values, field in zip(columns, schema, strict=True)]
        return schema, [pa.record_batch(arrays, schema=schema)]

    try:
        return map_arrow(_find(kind, name) or write_arrow(kind, make, name))
    except UnwritableError:
        schema, batches = make()
        return pa.Table.from_batches(batches, schema)


def map_arrow(path: Path) -> pa.Table:
    """Map an uncompressed Arrow file: the buffers of the table are the file itself.

    Raises:
        FileNotFoundError: There is no such file.
        pa.ArrowInvalid: It is damaged.
    """
    with pa.memory_map(str(path)) as mapped, pa.ipc.open_file(mapped) as reader:
        return reader.read_all()


def write_arrow(kind: str, make: Make, name: str | None = None) -> Path:
    """Write an uncompressed Arrow file to the cache; if that can't be written, to a temporary folder.

    Args:
        kind: Sub-folder of the cache.
        make: Returns schema and batches; called again if writing them failed.
        name: Name of the file without its suffix; it is flushed to disk. None: the hash of the content.

    Raises:
        UnwritableError: Neither can be written.
    """
    folder = cache_folder(kind)
    try:
        return _write(lambda: folder, make, name)
    except _FolderError as error:
        problem = f"the cache {folder} can't be written ({error})"
    advice = "set CALOTYPE_CACHE to a folder that has room"
    try:
        path = _write(_temporary.make, make, name)
    except _FolderError as error:
        problem = f"{problem}, nor can a temporary folder ({error}); {advice}"
        _problems.setdefault(folder.parent, problem)
        raise UnwritableError(problem) from None
    _problems.setdefault(folder.parent, f"{problem}: {path.parent} is used until this process ends; {advice}")
    return path


def cache_problem() -> str | None:
    """Return why this process can't write to the cache, for a note; None if it can."""
    return _problems.get(cache_folder("any").parent)


_problems: dict[Path, str] = {}
"""Cache folder → why it can't be written."""


class _Temporary:
    """A folder that is removed when the process that made it ends."""

    folder: Path | None = None

    def make(self) -> Path:
        if self.folder is None:
            self.folder = Path(tempfile.mkdtemp(prefix="calotype-"))
            atexit.register(self._remove, os.getpid(), self.folder)
        return self.folder

    @staticmethod
    def _remove(owner: int, folder: Path) -> None:
        if owner == os.getpid():  # not in a forked child
            shutil.rmtree(folder, ignore_errors=True)


_temporary = _Temporary()


class _FolderError(Exception):
    """A folder can't be made or written to."""


class _Sink(io.RawIOBase):
    """Writes to a file and hashes the data. `failure` is a write error, as opposed to an error of the data's source."""

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


def _write(folder_of: Callable[[], Path], make: Make, name: str | None) -> Path:
    """Write the file under a temporary name, then rename it."""
    with ExitStack() as stack:
        try:
            folder = folder_of()
            folder.mkdir(parents=True, exist_ok=True)
            folder = folder.resolve()
            new = stack.enter_context(new_file(folder))
        except OSError as error:
            raise _FolderError(error.strerror or str(error)) from None
        sink = _Sink(new.file)
        try:
            schema, batches = make()
            with pa.ipc.new_file(sink, schema) as writer:
                for batch in batches:
                    writer.write_batch(batch)
        except Exception:
            if sink.failure is not None:
                raise _FolderError(sink.failure.strerror or str(sink.failure)) from None
            raise
        target = folder / f"{name or sink.hasher.hexdigest()}.arrow"
        try:
            new.publish(target, durable=name is not None)
        except OSError as error:
            raise _FolderError(error.strerror or str(error)) from None
        return target


def _find(kind: str, name: str) -> Path | None:
    """Return the file of this name; None if it is missing or damaged."""
    for folder in (cache_folder(kind), _temporary.folder):
        path = None if folder is None else folder / f"{name}.arrow"
        try:
            if path is not None and path.exists():
                map_arrow(path)
                return path.resolve()
        except (pa.ArrowInvalid, OSError):
            continue  # damaged: it is written again
    return None


def _key(sources: Iterable[Path], note: str) -> str:
    states = [(str(source), file_state(source), _ends(source)) for source in sources]
    return xxhash.xxh3_128_hexdigest(json.dumps([states, note]).encode("utf-8", "surrogatepass"))


def _ends(source: Path) -> str:
    """Hash the first and the last bytes of a file."""
    with source.open("rb", buffering=0) as file:
        head = file.read(_ENDS)
        file.seek(max(0, file.seek(0, os.SEEK_END) - _ENDS))
        return xxhash.xxh3_128_hexdigest(head + file.read(_ENDS))
