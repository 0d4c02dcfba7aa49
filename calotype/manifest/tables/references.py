"""Normalizes image references (absolute, relative, `file://`, remote, inside an archive) to the form of ids."""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from calotype.manifest.captions import as_texts
from calotype.manifest.file_kinds import IMAGE_SUFFIXES
from calotype.manifest.manifest import REMOTE

__all__ = ["References", "is_remote", "normal_reference", "normal_references"]

# Characters that some programs write around a reference: white space, zero-width characters, quotes, brackets.
_BLANK = "\\s\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200f}\\x{2028}\\x{2029}\\x{202f}\\x{205f}-\\x{2060}\\x{3000}\\x{feff}"
_BLANKS = "".join(map(chr, (*range(0x21), 0x85, 0xA0, 0x1680, *range(0x2000, 0x2010), 0x2028, 0x2029, 0x202F))) + (
    "\u205f\u2060\u3000\ufeff"
)
_PAIRS = (('"', '"'), ("'", "'"), ("<", ">"), ("\u201c", "\u201d"), ("`", "`"))
_SUFFIXES = "|".join(sorted(suffix[1:] for suffix in IMAGE_SUFFIXES))
# `some/folder/a.jpg`: the common case, which needs no further check.
_PLAIN = rf"^(?:[^./\\%:<\"'`{_BLANK}][^/\\%:]*/)*[^./\\%:<\"'`{_BLANK}][^/\\%:]*\.(?i:{_SUFFIXES})$"
_REMOTE = rf"^[A-Za-z][A-Za-z0-9+.-]*://(?s:.*)[^\"'>`{_BLANK}]$"
# Of the others, those that are not a folder, a slash and a name: they are normalized one by one.
_IRREGULAR = rf"""^[<"'`\x{{201c}}{_BLANK}]|[\\:]|[>"'`\x{{201d}}{_BLANK}]$|/\.{{0,2}}$|^//|^/[^/]*$|^\.{{0,2}}$"""
_HOST = re.compile(r"//[\w-]+(\.[\w-]+)+(:\d+)?/")
_SCHEME = re.compile(r"(https?):/+(?=[^/])", re.IGNORECASE)


def _cleaned(text: str) -> str:
    """Strip the characters that programs write around a reference, and complete a URL's scheme."""
    text = text.strip(_BLANKS)
    for first, last in _PAIRS:
        if len(text) > 1 and text[0] == first and text[-1] == last:
            text = text[1:-1].strip(_BLANKS)
    if _HOST.match(text) and not os.path.lexists(text):
        return "https:" + text
    return _SCHEME.sub(r"\1://", text, count=1) if text[:4].lower() == "http" and "://" not in text[:9] else text


def normal_reference(text: str, base: Path, root: Path, folder_of: Callable[[str], str] | None = None) -> str:
    """Normalize a reference.

    Args:
        text: The reference in the data file; it is not a URL.
        base: Folder that relative references are relative to.
        root: Folder that ids are relative to.
        folder_of: A cached function that normalizes folders, for whole columns.

    Returns:
        A POSIX path, relative to `root` if the image is in or beside it, else absolute.
    """
    text = _cleaned(text)
    if text[:5].lower() == "file:":
        text = unquote(urlsplit(text).path)
        text = text[1:] if re.match(r"/[A-Za-z]:/", text) else text
    if is_remote(text):
        return text
    if "\\" in text and not _exists(base / text):
        text = text.replace("\\", "/")  # written on Windows
    if _DRIVE.match(text):
        return text
    folder_of = folder_of or partial(_normal_folder, base=base, root=root)
    folder, name = posixpath.split(text)
    return folder_of(text) if name in ("", ".", "..") else _join(folder_of(folder), name)


_DRIVE = re.compile(r"[A-Za-z]:/")


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # too long, or a null byte
        return False


def _normal_folder(folder: str, base: Path, root: Path) -> str:
    if not posixpath.isabs(folder):
        return posixpath.normpath(posixpath.join(os.path.relpath(base, root), folder))
    path = "/" + posixpath.normpath(folder).lstrip("/")
    real = os.path.realpath(root)
    for each, top in ((path, str(root)), (path, real), (os.path.realpath(path), real)):
        if each == top or each.startswith(top.rstrip("/") + "/"):
            return posixpath.relpath(each, top)
    return path


def _join(folder: str, name: str) -> str:
    return name if folder == "." else posixpath.join(folder, name)


class References(NamedTuple):
    """A column of N references."""

    texts: Any
    """(N,) large_string array of normalized references."""
    empty: npt.NDArray[np.bool_]
    """bool (N,): whether each is null or blank."""
    remote: npt.NDArray[np.bool_]
    """bool (N,): whether each is a URL."""
    odd: npt.NDArray[np.bool_]
    """bool (N,): whether each is not of the form `some/folder/a.jpg`."""


def normal_references(texts: Any, base: Path, root: Path) -> References:
    """Normalize a column of references.

    Args:
        texts: Text column.
        base: Folder that relative references are relative to.
        root: Folder that ids are relative to.
    """
    # Plain references, all at once.
    texts = as_texts(texts)
    if texts.null_count:
        texts = pc.fill_null(texts, "")
    plain = np.asarray(pc.match_substring_regex(texts, _PLAIN))
    if base != root and plain.any():
        lead = posixpath.normpath(Path(os.path.relpath(base, root)).as_posix()) + "/"
        lead_text, nothing = pa.scalar(lead, pa.large_string()), pa.scalar("", pa.large_string())
        joined = pc.binary_join_element_wise(lead_text, texts, nothing)
        texts = joined if plain.all() else pc.if_else(pa.array(plain), joined, texts)
    none = np.zeros(len(plain), dtype=bool)
    if plain.all():
        return References(texts, none, none, none)
    empty, remote = none.copy(), none.copy()
    # Of the others, URLs are unchanged.
    rows = np.flatnonzero(~plain)
    chosen = _whole(texts if len(rows) == len(plain) else texts.filter(pa.array(~plain)))
    url = np.asarray(pc.match_substring_regex(chosen, _REMOTE))
    url &= ~np.asarray(pc.match_substring_regex(chosen, r"^(?i:file):"))
    if url.all():
        remote[rows] = True
        return References(texts, empty, remote, ~plain)
    # Paths folder by folder, irregular ones one by one.
    hard = ~url & np.asarray(pc.match_substring_regex(chosen, _IRREGULAR))
    easy = ~(url | hard)
    if easy.any():
        fixed = _by_folder(chosen if easy.all() else chosen.filter(pa.array(easy)), base, root)
        chosen = fixed if easy.all() else pc.replace_with_mask(chosen, pa.array(easy), fixed)
    if hard.any():
        folder_of = lru_cache(4096)(partial(_normal_folder, base=base, root=root))
        ours = chosen.filter(pa.array(hard)).to_pylist()
        blank = np.array([not text.strip(_BLANKS) for text in ours])
        normal = ["" if not text.strip(_BLANKS) else normal_reference(text, base, root, folder_of) for text in ours]
        chosen = pc.replace_with_mask(chosen, pa.array(hard), pa.array(normal, pa.large_string()))
        empty[rows[hard]] = blank
        url[hard] = [is_remote(text) for text in normal]
    remote[rows] = url
    if len(rows) < len(plain):
        chosen = pc.replace_with_mask(_whole(texts), pa.array(~plain), chosen)
    return References(chosen, empty, remote, ~plain & ~empty)


def _by_folder(chosen: pa.Array, base: Path, root: Path) -> pa.Array:
    """Normalize paths folder by folder, since images share folders."""
    names = pc.replace_substring_regex(chosen, r"^(?s:.*)/", "")
    # A name alone is in the folder "".
    folders = pc.dictionary_encode(pc.replace_substring_regex(chosen, r"(^|/)[^/]*$", ""))
    normal = [_join(_normal_folder(folder, base, root), "") for folder in folders.dictionary.to_pylist()]
    leads = pa.array(normal, pa.large_string()).take(folders.indices)
    return pc.binary_join_element_wise(leads, names, pa.scalar("", pa.large_string()))


def _whole(texts: Any) -> pa.Array:
    return pa.concat_arrays(texts.chunks) if isinstance(texts, pa.ChunkedArray) else texts


def is_remote(reference: str) -> bool:
    """Whether a reference begins with a scheme, as URLs do."""
    return REMOTE.match(reference) is not None
