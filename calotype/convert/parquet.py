"""`Parquet`: images inside the files, or a table that refers to them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import pyarrow.parquet as pq

from calotype.convert.arrow import batches, bytes_in, schema
from calotype.convert.form import Images, Record, Target
from calotype.convert.table_form import TableForm

__all__ = ["Parquet"]


class Parquet(TableForm):
    """With embedded images, files of up to `shard_size` bytes; else `metadata.parquet`, or a file of any name.

    A row group has about 32 MB, so that reading a few rows reads little more. Image bytes are not compressed again.
    `datasets` decodes the image column.
    """

    name = "parquet"
    images: tuple[Images, ...] = ("embed", "refer", "copy", "link")
    shards = True
    table: str | None = "metadata.parquet"

    def column_names(self, images: Images, captions: int) -> tuple[str, tuple[str, ...]]:
        return ("file_name" if images in ("copy", "link") else "image"), ("text",)

    def write_part(self, target: Target, folder: Path, part: int, records: Iterator[Record]) -> None:
        if target.images != "embed":
            super().write_part(target, folder, part, records)
            return
        others = [name for name in schema(target).names if name != target.columns.image]
        with pq.ParquetWriter(
            folder / _part(part), schema(target), compression="none", use_dictionary=others, write_statistics=others
        ) as writer:
            for batch in batches(target, records):
                writer.write_batch(batch)

    def files(self, target: Target, part: int, names: Sequence[str]) -> Iterable[str]:
        return (_part(part),) if target.images == "embed" else super().files(target, part, names)

    def read_part(self, target: Target, folder: Path, part: int, names: Sequence[str]) -> Iterator[bytes]:
        if target.images != "embed":
            yield from super().read_part(target, folder, part, names)
            return
        with pq.ParquetFile(folder / _part(part)) as file:
            for batch in file.iter_batches(batch_size=64, columns=[target.columns.image]):
                yield from bytes_in(batch.column(0))

    def finish(self, target: Target, folder: Path, parts: int, records: Callable[[], Iterator[Record]]) -> None:
        if target.images == "embed":
            return
        assert self.table is not None
        with pq.ParquetWriter(folder / self.table, schema(target), compression="zstd") as writer:
            for batch in batches(target, records()):
                writer.write_batch(batch)


def _part(part: int) -> str:
    return f"data-{part:05d}.parquet"
