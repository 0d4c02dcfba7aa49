"""The cache folder: Arrow files that are cheap to map again and safe to delete."""

from __future__ import annotations

import io
import json
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pyarrow as pa
import xxhash

from calotype.home import cache_folder

__all__ = ["cache_dir", "cached", "map_arrow", "write_arrow", "write_atomically"]


def cache_dir(kind: str) -> Path:
    """`$CALOTYPE_CACHE/kind`, else `~/.cache/calotype/kind`; made if it is not there."""
    folder = cache_folder(kind)
    folder.mkdir(parents=True, exist_ok=True)
    return folder.resolve()


@contextmanager
def write_atomically(folder: Path) -> Iterator[Path]:
    """A temporary path in `folder`; whoever writes it renames it, and what is left of it goes away."""
    handle, name = tempfile.mkstemp(dir=folder, prefix=".writing-")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def map_arrow(path: Path) -> pa.Table:
    """The table of an uncompressed Arrow file, its buffers being the mapped file itself."""
    with pa.memory_map(str(path)) as mapped, pa.ipc.open_file(mapped) as reader:
        return reader.read_all()


def write_arrow(file: IO[bytes] | io.RawIOBase, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> None:
    """Writes an uncompressed Arrow file."""
    with pa.ipc.new_file(file, schema) as writer:
        for batch in batches:
            writer.write_batch(batch)


def cached(
    kind: str, sources: Iterable[Path], make: Callable[[], tuple[pa.Schema, Iterable[pa.RecordBatch]]], note: str = ""
) -> Path:
    """The Arrow file made from `sources`: made once, and anew when one of them changes its size or time.

    Args:
        kind: Sub-folder of the cache.
        sources: The files it is made from.
        make: Gives schema and batches when the file is not there yet.
        note: What else the content depends on.
    """
    stats = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in sources]
    key = xxhash.xxh3_128_hexdigest(json.dumps([stats, note]).encode("utf-8", "surrogatepass"))
    target = cache_dir(kind) / f"{key}.arrow"
    if not target.exists():
        with write_atomically(target.parent) as temporary:
            with temporary.open("wb") as file:
                write_arrow(file, *make())
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(target)
    return target
