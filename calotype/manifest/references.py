"""Image references: absolute, relative, `file://`, remote, or inside an archive become ids and places of bytes."""

from __future__ import annotations

import os
import posixpath
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

# Everything that is not plainly `some/folder/a.jpg`: goes through `normal_reference`, one by one.
_UNUSUAL = r"^/|^\.{1,2}/|//|/\.{1,2}/|/\.{1,2}$|\\|^file:|^FILE:|^\s|\s$"
_REMOTE = r"^[A-Za-z][A-Za-z0-9+.-]*://"


def normal_reference(text: str, base: Path, root: Path) -> str:
    """The reference as ids and the manifest have it.

    Args:
        text: As the data file has it, already known not to be remote.
        base: Folder that relative references are relative to.
        root: Folder that ids are relative to.

    Returns:
        A posix path relative to `root` where the picture lies in or beside it, else an absolute one.
    """
    text = text.strip()
    if text[:7].lower() == "file://":
        text = unquote(urlsplit(text).path)
    if "\\" in text and not (base / text).exists():
        text = text.replace("\\", "/")  # written on Windows
    if posixpath.isabs(text):
        path = posixpath.normpath(text)
        real = os.path.realpath(root)
        for place, folder in ((path, str(root)), (path, real), (os.path.realpath(path), real)):
            prefix = folder.rstrip("/") + "/"
            if place.startswith(prefix):
                return place[len(prefix) :]
        return path
    return posixpath.normpath(posixpath.join(os.path.relpath(base, root), text))


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
    todo = np.flatnonzero(unusual & ~remote)
    if len(todo):
        known: dict[str, str] = {}
        fixed = []
        for text in texts.take(pa.array(todo)).to_pylist():
            if text not in known:
                known[text] = normal_reference(text, base, root)
            fixed.append(known[text])
        mask = np.zeros(len(texts), dtype=bool)
        mask[todo] = True
        texts = pc.replace_with_mask(texts, pa.array(mask), pa.array(fixed, pa.large_string()))
    trailing = np.flatnonzero(remote & unusual)
    if len(trailing):
        stripped = pc.utf8_trim_whitespace(texts)
        texts = pc.if_else(pa.array(remote), stripped, texts)
    return texts, empty


def is_remote(reference: str) -> bool:
    return REMOTE.match(reference) is not None
