"""References into archives: `shard.tar!a.jpg` and `images.lmdb!key` in a data file."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from calotype.errors import ManifestError
from calotype.manifest.archives.lmdb_index import lmdb_index
from calotype.manifest.archives.tar_index import tar_index

__all__ = ["ARCHIVED", "find_archived"]

ARCHIVED: Final = r"\.(tar|lmdb|mdb)!."
"""Pattern found in each reference into an archive."""
_SPLIT = re.compile(r"(.*?\.(tar|lmdb|mdb))!(.+)", re.DOTALL)


def find_archived(refs: Any, root: Path, problems: dict[int, str]) -> tuple[Any, ...] | None:
    """Resolve references into archives.

    Args:
        refs: large_string array of normalized references.
        root: Folder that they are relative to.
        problems: Row → reason; members that do not exist are added.

    Returns:
        References, names, ids, offsets, sizes and keys; None if no reference is to an archive.
    """
    rows = np.flatnonzero(np.asarray(pc.match_substring_regex(refs, ARCHIVED)))
    if not len(rows):
        return None
    # Values of rows that refer to files are unchanged.
    texts = refs.to_pylist()
    archives: list[str | None] = list(texts)
    names: list[str | None] = [None] * len(texts)
    offsets: list[int | None] = [None] * len(texts)
    sizes: list[int | None] = [None] * len(texts)
    keys: list[bytes | None] = [None] * len(texts)
    tars: dict[str, dict[str, tuple[int, int]]] = {}
    environments: dict[str, set[bytes] | None] = {}
    for row in map(int, rows):
        match = _SPLIT.fullmatch(texts[row])
        if match is None or "://" in match[1]:
            continue
        archive, kind, member = match.groups()
        archives[row], names[row] = archive, texts[row]
        # LMDB: the member is a key.
        if kind != "tar":
            keys[row] = member.encode("utf-8")
            if archive not in environments:
                try:
                    environments[archive] = set(lmdb_index(root / archive)["key"].to_pylist())
                except ManifestError as error:
                    environments[archive] = None
                    problems[row] = str(error)
            found = environments[archive]
            if found is None or keys[row] not in found:
                problems.setdefault(row, f"no image {member!r} in {archive}")
            continue
        # Tar: the member is a byte range.
        if archive not in tars:
            try:
                tars[archive] = _members(root / archive)
            except ManifestError as error:
                tars[archive] = {}
                problems[row] = str(error)
        if member in tars[archive]:
            offsets[row], sizes[row] = tars[archive][member]
        else:
            problems.setdefault(row, f"no image {member!r} in {archive}")
    text, whole = pa.large_string(), pa.int64()
    return (
        pa.array(archives, text),
        pa.array(names, text),
        pa.array(texts, text),
        pa.array(offsets, whole),
        pa.array(sizes, whole),
        pa.array(keys, pa.binary()),
    )


def _members(archive: Path) -> dict[str, tuple[int, int]]:
    index = tar_index(archive)
    ranges = zip(index["offset"].to_pylist(), index["size"].to_pylist(), strict=True)
    return dict(zip(index["name"].to_pylist(), ranges, strict=True))
