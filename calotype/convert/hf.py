"""`SavedDataset`: the folder that Hugging Face's `datasets.load_from_disk` reads."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import xxhash

from calotype.convert.arrow import batches, bytes_in, schema
from calotype.convert.form import Form, Images, Record, Target

__all__ = ["SavedDataset"]


class SavedDataset(Form):
    """Arrow streams of up to `shard_size` bytes with `state.json` and `dataset_info.json` beside them."""

    name = "hf"
    images: tuple[Images, ...] = ("embed", "refer")
    shards = True

    def column_names(self, images: Images, captions: int) -> tuple[str, tuple[str, ...]]:
        return "image", ("text",)

    def write_part(self, target: Target, folder: Path, part: int, records: Iterator[Record]) -> None:
        with pa.OSFile(str(folder / _part(part)), "wb") as file, pa.ipc.new_stream(file, schema(target)) as writer:
            for batch in batches(target, records):
                writer.write_batch(batch)

    def files(self, target: Target, part: int, names: Sequence[str]) -> Iterable[str]:
        return (_part(part),)

    def read_part(self, target: Target, folder: Path, part: int, names: Sequence[str]) -> Iterator[bytes]:
        if target.images != "embed":
            return
        with pa.memory_map(str(folder / _part(part))) as file, pa.ipc.open_stream(file) as reader:
            for batch in reader:
                yield from bytes_in(batch.column(0))

    def finish(self, target: Target, folder: Path, parts: int, records: Callable[[], Iterator[Record]]) -> None:
        names = [f"data-{part:05d}-of-{parts:05d}.arrow" for part in range(parts)]
        for part, name in enumerate(names):
            if (folder / _part(part)).exists():
                (folder / _part(part)).rename(folder / name)
        digest = xxhash.xxh3_64()
        for record in records():
            digest.update(json.dumps([record.row.id, record.name, record.row.captions]).encode())
        state: dict[str, Any] = {
            "_data_files": [{"filename": name} for name in names],
            "_fingerprint": digest.hexdigest(),
            "_format_columns": None,
            "_format_kwargs": {},
            "_format_type": None,
            "_output_all_columns": False,
            "_split": "train",
        }
        # `datasets` takes the features from the Arrow schema, which marks the image column.
        info = {"citation": "", "description": "", "homepage": "", "license": ""}
        for name, content in (("state.json", state), ("dataset_info.json", info)):
            (folder / name).write_text(json.dumps(content, indent=2), encoding="utf-8")


def _part(part: int) -> str:
    return f"data-{part:05d}.arrow"
