"""Image references: absolute, relative, `file://`, remote, or inside an archive become ids and places of bytes."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from calotype.manifest.captions import as_texts
from calotype.manifest.manifest import REMOTE

__all__ = ["normal_reference", "normal_references"]

# Everything that is not plainly `some/folder/a.jpg`.
_UNUSUAL = r"^/|^\.{1,2}/|//|/\.{1,2}/|/\.{1,2}$|^\.{1,2}$|/$|\\|^(?i:file):|^\s|\s$"
# Of these, what can't be cut into a folder and a name at its last slash.
_AWKWARD = r"\\|^(?i:file):|^\s|\s$|/\.{0,2}$|^[^/]*$|^/[^/]*$"
_REMOTE = r"^[A-Za-z][A-Za-z0-9+.-]*://"


def normal_reference(text: str, base: Path, root: Path, folder_of: Callable[[str], str] | None = None) -> str:
    """The reference as ids and the manifest have it.

    Args:
        text: As the data file has it, already known not to be remote.
        base: Folder that relative references are relative to.
        root: Folder that ids are relative to.
        folder_of: A remembered answer to what a folder is, for whole columns.

    Returns:
        A posix path relative to `root` where the picture lies in or beside it, else an absolute one.
    """
    text = text.strip()
    if text[:7].lower() == "file://":
        text = unquote(urlsplit(text).path)
    if "\\" in text and not (base / text).exists():
        text = text.replace("\\", "/")  # written on Windows
    folder_of = folder_of or partial(_normal_folder, base=base, root=root)
    folder, name = posixpath.split(text)
    return folder_of(text) if name in ("", ".", "..") else _join(folder_of(folder), name)


def _normal_folder(folder: str, base: Path, root: Path) -> str:
    if not posixpath.isabs(folder):
        return posixpath.normpath(posixpath.join(os.path.relpath(base, root), folder))
    path = "/" + posixpath.normpath(folder).lstrip("/")
    real = os.path.realpath(root)
    for place, top in ((path, str(root)), (path, real), (os.path.realpath(path), real)):
        if place == top or place.startswith(top.rstrip("/") + "/"):
            return posixpath.relpath(place, top)
    return path


def _join(folder: str, name: str) -> str:
    return name if folder == "." else posixpath.join(folder, name)


def normal_references(texts: Any, base: Path, root: Path) -> tuple[Any, npt.NDArray[np.bool_]]:
    """A whole column of references at once.

    Returns:
        The normal references, and a mask of those that are empty (null or nothing but white space).
    """
    texts = as_texts(texts)
    if texts.null_count:
        texts = pc.fill_null(texts, "")
    prefix = root.as_posix().rstrip("/") + "/"
    inside = pc.and_not(pc.starts_with(texts, prefix), pc.match_substring_regex(texts, "//|/$"))
    if base == root and pc.any(inside).as_py():
        texts = pc.if_else(inside, pc.utf8_slice_codeunits(texts, len(prefix)), texts)
    empty = np.asarray(pc.or_(pc.equal(pc.binary_length(texts), 0), pc.utf8_is_space(texts)))
    remote = np.asarray(pc.match_substring_regex(texts, _REMOTE))
    unusual = np.asarray(pc.match_substring_regex(texts, _UNUSUAL)) & ~empty
    remote &= ~np.asarray(pc.match_substring_regex(texts, r"^(?i:file)://"))
    plain = ~(unusual | remote | empty)
    if base != root and plain.any():
        lead = posixpath.normpath(Path(os.path.relpath(base, root)).as_posix()) + "/"
        lead_text, nothing = pa.scalar(lead, pa.large_string()), pa.scalar("", pa.large_string())
        texts = pc.if_else(pa.array(plain), pc.binary_join_element_wise(lead_text, texts, nothing), texts)
    unusual &= ~remote
    texts = _by_folder(texts, unusual, base, root)
    if remote.any():
        texts = pc.if_else(pa.array(remote), pc.utf8_trim_whitespace(texts), texts)
    return texts, empty


def _by_folder(texts: Any, unusual: npt.NDArray[np.bool_], base: Path, root: Path) -> Any:
    """Puts the unusual references right: folder by folder where that is possible, since pictures share folders."""
    if not unusual.any():
        return texts
    awkward = unusual & np.asarray(pc.match_substring_regex(texts, _AWKWARD))
    easy = unusual & ~awkward
    if easy.any():
        chosen = _whole(texts.filter(pa.array(easy)))
        names = pc.replace_substring_regex(chosen, r"^(?s:.*)/", "")
        folders = pc.dictionary_encode(pc.replace_substring_regex(chosen, r"/[^/]*$", ""))
        normal = [_join(_normal_folder(folder, base, root), "") for folder in folders.dictionary.to_pylist()]
        leads = pa.array(normal, pa.large_string()).take(folders.indices)
        joined = pc.binary_join_element_wise(leads, names, pa.scalar("", pa.large_string()))
        texts = pc.replace_with_mask(texts, pa.array(easy), joined)
    if awkward.any():
        chosen = _whole(texts.filter(pa.array(awkward)))
        folder_of = lru_cache(4096)(partial(_normal_folder, base=base, root=root))
        fixed = [normal_reference(text, base, root, folder_of) for text in chosen.to_pylist()]
        texts = pc.replace_with_mask(texts, pa.array(awkward), pa.array(fixed, pa.large_string()))
    return texts


def _whole(texts: Any) -> pa.Array:
    return pa.concat_arrays(texts.chunks) if isinstance(texts, pa.ChunkedArray) else texts


def is_remote(reference: str) -> bool:
    return REMOTE.match(reference) is not None
