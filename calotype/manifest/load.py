"""`load_manifest`: looks at what a path is and has the right reader read it."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from calotype.errors import ConfigError, ManifestError
from calotype.ledger import Ledger
from calotype.manifest.arrow_files import read_arrow, read_parquet
from calotype.manifest.assemble import assemble, fill_missing_captions
from calotype.manifest.columns import ColumnMap, parse_column_map
from calotype.manifest.delimited import read_delimited
from calotype.manifest.folder import list_folder, read_folder
from calotype.manifest.json_files import read_json
from calotype.manifest.manifest import Manifest
from calotype.manifest.reading import IMAGE_SUFFIXES, Part, Reading

__all__ = ["load_manifest"]

PathLike = str | os.PathLike[str]

_READERS: dict[str, Callable[[Path, Reading], Part]] = {
    ".json": read_json,
    ".jsonl": read_json,
    ".ndjson": read_json,
    ".csv": read_delimited,
    ".tsv": read_delimited,
    ".parquet": read_parquet,
    ".arrow": read_arrow,
    ".feather": read_arrow,
}


def load_manifest(
    path: PathLike | Sequence[PathLike] | None = None,
    *,
    columns: ColumnMap | None = None,
    split: str | None = None,
    root: PathLike | None = None,
    missing_captions: str = "error",
    recursive: bool = True,
    caption_lines: Literal["one", "many"] = "one",
    validation: float = 0.0,
    validation_seed: int = 0,
    data_files: Any = None,
    image_dir: PathLike | None = None,
    column_map: ColumnMap | None = None,
    source: PathLike | Sequence[PathLike] | None = None,
    on_error: Literal["raise", "skip"] = "raise",
    ledger: Ledger | None = None,
) -> Manifest:
    """Thin for now."""
    path = path if path is not None else source
    root = root if root is not None else image_dir
    assert path is not None
    ledger = ledger if ledger is not None else Ledger()
    paths = [path] if isinstance(path, str | os.PathLike) else list(path)
    files: list[Path] = []
    for one in paths:
        text = os.path.expanduser(os.fspath(one))
        files += [Path(name) for name in sorted(glob.glob(text))] if glob.has_magic(text) else [Path(text)]
    files = [Path(os.path.abspath(file)) for file in files]
    for file in files:
        if not file.exists():
            raise ManifestError(f"{file}: there is no such file or folder")
    image_root = Path(os.path.abspath(os.path.expanduser(root))) if root is not None else None
    folders = [file if file.is_dir() else file.parent for file in files]
    reading = Reading(
        root=image_root or Path(os.path.commonpath(folders)),
        image_root=image_root,
        columns=parse_column_map(columns if columns is not None else column_map),
        need_captions=missing_captions == "error",
        recursive=recursive,
        many_lines=caption_lines == "many",
        split=split,
        skip=on_error == "skip",
        ledger=ledger,
    )
    parts: list[Part] = []
    formats: list[str] = []
    for file in files:
        if file.is_dir():
            listing = list_folder(file, recursive, reading.bad)
            parts += read_folder(file, listing, reading, lambda f, r: _READERS[f.suffix.lower()](f, r))
            formats.append("folder")
        else:
            parts.append(_READERS[file.suffix.lower()](file, reading))
            formats.append(file.suffix[1:])
    if not parts:
        raise ManifestError(f"{path}: no pictures found")
    table, where = assemble(parts, reading)
    table = fill_missing_captions(table, where, missing_captions, reading)
    about = {"format": ", ".join(sorted(set(formats))), "notes": reading.notes}
    return Manifest(table, root=reading.root, about=about, ledger=ledger)
