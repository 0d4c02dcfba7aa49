"""Findings about files: unusable and suspicious ones, and images and captions without a counterpart."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations
from pathlib import Path
from typing import Final, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from calotype.check.facts import Facts
from calotype.check.kinds import Level
from calotype.check.report import Finding, finding
from calotype.check.strays import strays
from calotype.core.small_files import read_small_file
from calotype.manifest import Manifest
from calotype.manifest.captions import decode_text, split_captions
from calotype.manifest.exclude import EXCLUDE_NOTHING, Exclude
from calotype.manifest.file_kinds import DATA_SUFFIXES, IMAGE_SUFFIXES
from calotype.manifest.folders.caption_files import CaptionFiles, is_json, parse_caption_suffix
from calotype.manifest.folders.companions import READ_AS_SAMPLES
from calotype.manifest.folders.listing import printable
from calotype.manifest.folders.named_splits import DEFAULT_SPLIT_NOTE
from calotype.manifest.paths import absolute
from calotype.manifest.unused_captions import UNUSED_CAPTIONS, has_captions, may_be_captions
from calotype.types import ImageRef

__all__ = ["file_findings"]

_FORMATS: Final = {
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".jpe": "JPEG",
    ".jfif": "JPEG",
    ".png": "PNG",
    ".webp": "WEBP",
    ".avif": "AVIF",
    ".gif": "GIF",
    ".bmp": "BMP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".heic": "HEIF",
}
"""Suffix → expected `Header.format`. Not `.heif`, which has two possible formats."""

_LEDGER: Final = {
    "bad_row": "bad_row",
    "duplicate_id": "bad_row",
    "no_picture": "caption_without_image",
    "no_split": "no_split",
    "rejected": "rejected",
    UNUSED_CAPTIONS: "unused_captions",
    "unused_member": "unused_member",
} | {
    kind: kind
    for kind in ("companion", "regularisation", "archive", "unread_data", "broken_link", "link_loop", "excluded")
}
"""Kind in the manifest's ledger → kind of finding."""


def file_findings(
    manifest: Manifest,
    facts: Sequence[Facts],
    *,
    folders: Sequence[Path],
    missing_captions: str | None,
    implied: Literal["trigger", "template"] | None = None,
    caption_lines: str | None = None,
    caption_suffix: str | Sequence[str] | None = None,
    exclude: Exclude = EXCLUDE_NOTHING,
) -> tuple[list[Finding], set[int]]:
    """Return the findings of the section `files`, and the rows without a caption.

    Args:
        manifest: Loaded with `on_error="skip"` and `missing_captions="empty"`.
        facts: Facts of each row.
        folders: The folders of the option `path`; they are searched for files that are not read.
        missing_captions: The config's option; None if not set.
        implied: What makes a text for every image, so that images without a caption are intended; None without any.
        caption_lines: The config's option; None if not set.
        caption_suffix: The config's option.
        exclude: The config's patterns of files to leave out.

    Returns:
        The findings; and the rows without a caption, which `caption_findings` skips.
    """
    ids = manifest.ids.to_pylist()
    found = list(_unusable_images(manifest, ids, facts))
    # Entries of the ledger. Training stops if no image has a caption but unread files may hold some, unless the config
    # allows it.
    stops = missing_captions in (None, "error") and not has_captions(manifest.captions)
    alike: dict[tuple[str, str], list[str]] = defaultdict(list)
    for entry in manifest.ledger:
        if entry.kind in _LEDGER:
            alike[entry.kind, entry.reason].append(_relative(entry.id, manifest.root))
    for (kind, reason), (first, *others) in alike.items():
        if kind == UNUSED_CAPTIONS:
            level: Level | None = "error" if stops else None
            found.append(finding(_LEDGER[kind], first, reason, level=level, others=tuple(others)))
            continue
        for where in (first, *others):
            if not may_be_captions(kind, where):
                level = "note" if kind == "no_picture" else None
            else:
                level = "error" if stops else None
            advice = _advice(kind, where, caption_suffix)
            found.append(finding(_LEDGER[kind], where, reason, level=level, advice=advice))
    notes = manifest.describe()["notes"]
    found += [finding("other_splits", "", note) for note in notes if note.startswith(DEFAULT_SPLIT_NOTE)]
    found += [finding("doubtful", "", note) for note in notes if READ_AS_SAMPLES in note]
    # Files that are not read.
    already = {entry.id for entry in manifest.ledger}
    for folder in map(absolute, folders):
        for stray in strays(folder, parse_caption_suffix(caption_suffix), exclude, already):
            where, *others = (_as_id(folder, name, manifest.root) for name in (stray.name, *stray.others))
            found.append(
                finding("unsupported", where, stray.what, advice=stray.advice, level=stray.level, others=tuple(others))
            )
    without = _without_caption(manifest)
    beside = _Beside(parse_caption_suffix(caption_suffix))
    missing = "empty" if implied and missing_captions is None else missing_captions
    then = _consequence(missing, implied)
    # If other images have captions, a missing one is likely a mistake, unless the config allows it.
    mixed = implied and missing_captions is None and has_captions(manifest.captions)
    level = None if missing in (None, "error") else "warning" if mixed else "note"
    found += _missing_captions(manifest, ids, without, then, beside, level)
    found += _shared_captions(manifest, ids, beside)
    if caption_lines is None:
        found += _several_lines(manifest, ids, beside)
    return found, set(without)


def _unusable_images(manifest: Manifest, ids: Sequence[str], facts: Sequence[Facts]) -> Iterator[Finding]:
    misnamed = []
    for row, (id, one) in enumerate(zip(ids, facts, strict=True)):
        if one.problem is not None:
            yield finding(one.problem[0], id, one.problem[1], level="error")
            continue
        header = one.header
        assert header is not None
        for note in one.notes:
            if note.startswith("incomplete: "):
                detail = f"{note.removeprefix('incomplete: ')}; its pixels are all there"
                yield finding("truncated", id, detail, level="warning")
        if header.frames > 1:
            yield finding("animated", id, f"{header.frames:,} {'pages' if header.format == 'TIFF' else 'frames'}")
        if _FORMATS.get(_suffix(id), "") != header.format:
            misnamed.append(row)
    for row, ref in zip(misnamed, manifest.refs(misnamed), strict=True):
        header = facts[row].header
        suffix = _suffix(ref.name)
        # A URL's suffix need not match the format.
        if ref.url is None and header is not None and _FORMATS.get(suffix, header.format) != header.format:
            yield finding("wrong_suffix", ids[row], f"it is a {header.format}, and its name ends in {suffix}")


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()  # noqa: PTH122 - a Path for each of 100,000 names costs a second


def _relative(path: str, root: Path) -> str:
    """Return a path in the form of ids, relative to the root if it is inside. Also accepts `file:line`."""
    return path.removeprefix(f"{root}/")


def _advice(kind: str, where: str, caption_suffix: str | Sequence[str] | None) -> str | None:
    """Return the advice for a bad file by its type; None for the advice of the kind, as for rows of data files."""
    if kind != "bad_row":
        return None
    suffix = _suffix(where)
    if where.startswith("exclude="):
        return "fix the pattern in the config, or remove it"
    if suffix in parse_caption_suffix(caption_suffix):
        return "fix the caption file, or remove it"
    if suffix in IMAGE_SUFFIXES:
        return "rename it"
    # Members are written `archive!name`, rows `file:line` or `file#row`.
    return None if set(where) & set("!:#") or suffix in DATA_SUFFIXES else "check the folder's rights, or exclude it"


def _as_id(folder: Path, name: str, root: Path) -> str:
    """Return a file of a folder, whose name may not be valid text, in the form of ids."""
    return _relative(f"{folder}/{printable(name)}", root)


def _without_caption(manifest: Manifest) -> list[int]:
    """Return the rows whose captions are all empty."""
    captions = manifest.captions
    if pa.types.is_null(captions.type):
        return list(range(len(manifest)))
    has = np.zeros(len(manifest), dtype=bool)
    start = 0
    for chunk in captions.chunks:
        lengths = pc.binary_length(pc.list_flatten(chunk))
        owners = pc.list_parent_indices(chunk).filter(pc.greater(lengths, 0)).to_numpy()
        has[start + owners] = True
        start += len(chunk)
    return [int(row) for row in np.flatnonzero(~has)]


class _Beside:
    """The caption files beside image files."""

    def __init__(self, suffixes: Sequence[str]) -> None:
        self._suffixes = suffixes
        self._folders: dict[str, CaptionFiles] = {}

    def of(self, ref: ImageRef) -> list[str]:
        """Return the paths of an image's caption files, in their order."""
        if ref.path is None or ref.key is not None or ref.size is not None:
            return []
        folder, name = os.path.split(ref.path)
        if folder not in self._folders:
            self._folders[folder] = self._look(folder)
        return [f"{folder}/{file}" for file in self._folders[folder].of(name)]

    def texts_of(self, ref: ImageRef) -> list[str]:
        """Return the paths of an image's text files, without JSON."""
        return [file for file in self.of(ref) if not is_json(file)]

    def _look(self, folder: str) -> CaptionFiles:
        try:
            names = sorted(os.listdir(folder))  # noqa: PTH208 - names are enough
        except OSError:
            names = []
        images = [name for name in names if _suffix(name) in IMAGE_SUFFIXES]
        return CaptionFiles(images, [name for name in names if _suffix(name) not in IMAGE_SUFFIXES], self._suffixes)


def _consequence(missing_captions: str | None, implied: str | None) -> str:
    """Return what becomes of an image without a caption."""
    return {
        None: "training stops there",
        "error": "training stops there",
        "skip": "it is left out",
        "empty": f"the {implied} alone is its caption" if implied else "its caption is empty",
    }.get(missing_captions, f"its caption becomes {missing_captions!r}")


def _missing_captions(
    manifest: Manifest,
    ids: Sequence[str],
    rows: Sequence[int],
    then: str,
    beside: _Beside,
    level: Level | None,
) -> Iterator[Finding]:
    """Yield findings for rows without a caption; `level` is None if the config does not allow them."""
    unsaid = level is None
    broken = {entry.id for entry in manifest.ledger if entry.kind == "bad_row"}
    for row, ref in zip(rows, manifest.refs(rows), strict=True):
        if any(file in broken for file in beside.of(ref)):
            continue  # unreadable, and reported as such
        blank = [file for file in beside.texts_of(ref) if _is_blank(file)]
        if blank:
            detail = f"{Path(blank[0]).name} holds no text; {then}"
            yield finding("empty_caption", ids[row], detail, level="error" if unsaid else None)
        elif unsaid:
            yield finding("no_caption", ids[row], f"it has no caption; {then}")
        else:
            meant = "nothing" if level == "note" else "missing_captions=empty"
            advice = f"{meant}, if that is meant; else write one"
            yield finding("no_caption", ids[row], f"it has no caption; {then}", advice=advice, level=level)


def _is_blank(file: str) -> bool:
    try:
        return not decode_text(read_small_file(file)).strip()
    except (OSError, UnicodeDecodeError):
        return False


def _several_lines(manifest: Manifest, ids: Sequence[str], beside: _Beside) -> Iterator[Finding]:
    """Find caption files of several lines, where each line may be intended as a caption."""
    captions = manifest.captions
    owners = pc.list_parent_indices(captions)
    broken = pc.match_substring(pc.utf8_trim_whitespace(pc.list_flatten(captions)), "\n")
    rows = pc.unique(owners.filter(broken)).to_pylist()
    several, most = [], 0
    for row, ref in zip(rows, manifest.refs(rows), strict=True):
        texts = {text for file in beside.texts_of(ref) for text in _texts(file)}
        whole = [text for text in manifest.captions_of(row) if text in texts]
        counts = [sum(bool(line.strip()) for line in text.split("\n")) for text in whole]
        if max(counts, default=0) > 1:
            several.append(ids[row])
            most = max(most, *counts)
    notes = [note for note in manifest.describe()["notes"] if "caption_lines=many" in note]
    if notes and not several:  # about archives, whose texts are not read here
        yield finding("several_lines", "", notes[0])
    if several:
        share = f"{len(several):,} of {len(ids):,} images"
        detail = f"{share} have a caption file of several lines, up to {most}, which is one caption"
        yield finding("several_lines", "", detail, others=tuple(several))


def _texts(file: str) -> list[str]:
    try:
        return split_captions(decode_text(read_small_file(file)), many=False)
    except (OSError, UnicodeDecodeError):
        return []


def _shared_captions(manifest: Manifest, ids: Sequence[str], beside: _Beside) -> Iterator[Finding]:
    """Find images that differ only in their suffix, so that they share a caption file."""
    stems: dict[str, list[int]] = defaultdict(list)
    for row, id in enumerate(ids):
        stems[os.path.splitext(id)[0]].append(row)  # noqa: PTH122
    for rows in stems.values():
        if len(rows) > 1:
            yield from _sharing(manifest, ids, rows, beside)


def _sharing(manifest: Manifest, ids: Sequence[str], rows: Iterable[int], beside: _Beside) -> Iterator[Finding]:
    files = {row: beside.of(ref) for row, ref in zip(rows, manifest.refs(rows), strict=True)}
    shared: dict[str, set[int]] = defaultdict(set)
    for one, other in combinations(files, 2):
        # Equal captions may come from a metadata file, which has priority over files beside the images.
        if manifest[one].captions == manifest[other].captions != ("",):
            for file in set(files[one]) & set(files[other]):
                shared[file] |= {one, other}
    for file, some in shared.items():
        first, *others = (ids[row] for row in sorted(some))
        yield finding("same_stem", first, f"{Path(file).name} is the caption of {len(some)}", others=tuple(others))
