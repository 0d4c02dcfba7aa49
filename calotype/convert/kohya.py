"""`Kohya`: folders `10_name/` with `a.jpg` and `a.txt`; a `metadata.jsonl` holds what these can't."""

from __future__ import annotations

import posixpath
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from calotype.convert.form import Finding, Images, Record, Target
from calotype.convert.jsonl import JsonForm, write_lines
from calotype.convert.names import Names, split_suffix, tidy, wish
from calotype.convert.table_form import read_files, write_files
from calotype.manifest.folders.kohya import kohya_folder
from calotype.manifest.manifest import Manifest
from calotype.types import Row

__all__ = ["Kohya"]

_READ = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp"})
"""sd-scripts' `IMAGE_EXTENSIONS` without optional packages."""


class Kohya(JsonForm):
    """The folder for sd-scripts' `--train_data_dir`, with `--caption_extension .txt`.

    The number before `_` is the repeats of the folder's images in an epoch. A text file has a caption on each line:
    kohya uses the first, or with `enable_wildcard` a random one. It reads no deeper folders and no other files, so
    `metadata.jsonl` can hold ids, sizes, exact weights and further columns. It holds no captions: they are edited in
    one place, the text files.
    """

    name = "kohya"
    images: tuple[Images, ...] = ("copy", "link")

    def column_names(self, images: Images, captions: int) -> tuple[str, tuple[str, ...]]:
        return "file_name", ()

    def names(self, rows: Iterable[Row], images: Images, folder: Path, title: str) -> Iterator[str]:
        own = tidy(title.replace("/", "_"))
        names = Names(by_stem=True)
        for row in rows:
            wanted = wish(row.image)
            repeats = _repeats(row.weight)
            source = kohya_folder(posixpath.dirname(wanted))
            name = tidy(source[2]) if source and source[1] == repeats else own
            yield names.take(f"{repeats}_{name}/{posixpath.basename(tidy(wanted))}")

    def caption(self, text: str) -> str:
        return re.sub(r"[\r\n]+", " ", text)

    def findings(self, manifest: Manifest, names: Sequence[str], captions: int) -> Iterator[Finding]:
        yield from super().findings(manifest, names, captions)
        weights = manifest.weights()
        rounded = sum(weight != _repeats(weight) for weight in weights.tolist())
        if rounded:
            yield Finding(
                level="note",
                kind="rounded_repeats",
                count=rounded,
                text=f"{rounded:,} weights are not whole numbers: kohya rounds them, metadata.jsonl has them exact",
            )
        others = Counter(suffix for name in names if (suffix := split_suffix(name)[1].lower()) and suffix not in _READ)
        if others:
            kinds = ", ".join(sorted(others))
            yield Finding(
                level="note",
                kind="unread_by_kohya",
                count=others.total(),
                text=f"{others.total():,} images are {kinds}, which kohya's scripts ignore",
            )
        if captions > 1:
            yield Finding(
                level="note",
                kind="captions_as_lines",
                count=captions,
                text="several captions of an image become lines of its text file: kohya uses a random one with "
                "enable_wildcard (else the first), calotype with caption_lines=many",
            )

    def write_part(self, target: Target, folder: Path, part: int, records: Iterator[Record]) -> None:
        def with_captions() -> Iterator[Record]:
            for record in records:
                yield record
                file = folder / f"{split_suffix(record.name)[0]}.txt"
                # kohya raises on an empty file; one empty line is an empty caption.
                file.write_text("\n".join(record.row.captions) + "\n", encoding="utf-8", newline="\n")

        write_files(target, folder, with_captions())

    def files(self, target: Target, part: int, names: Sequence[str]) -> Iterable[str]:
        return [file for name in names for file in (name, f"{split_suffix(name)[0]}.txt")]

    def read_part(self, target: Target, folder: Path, part: int, names: Sequence[str]) -> Iterator[bytes]:
        return read_files(target, folder, names)

    def finish(self, target: Target, folder: Path, parts: int, records: Callable[[], Iterator[Record]]) -> None:
        # It lists every row, since it defines their order, and always weights, which the folders' names round.
        write_lines(folder / "metadata.jsonl", replace(target.columns, weights=True), records())

    def reading(self) -> Mapping[str, Any]:
        return {"caption_lines": "many"}


def _repeats(weight: float) -> int:
    """Return the repeats of an image's folder; kohya skips folders of 0 repeats, as a weight of 0 means."""
    return max(1, round(weight)) if weight else 0
