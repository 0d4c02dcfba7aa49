"""JSON from data files: nesting is limited, and a key must not occur twice in one object."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

__all__ = ["MAX_DEPTH", "has_deep_rows", "loads"]

MAX_DEPTH: Final = 32
"""Maximum levels of objects and lists. Rows need few levels; Arrow writes at most 64, and a recursive parser overflows
the stack at a few thousand."""

_BLOCK: Final = 4 << 20
_STEPS: Final = np.zeros(256, np.int8)
"""Byte → change of the depth."""
_STEPS[[ord("["), ord("{")]] = 1
_STEPS[[ord("]"), ord("}")]] = -1


def loads(text: str | bytes) -> Any:
    """Parse a JSON text as `json.loads` does.

    Raises:
        json.JSONDecodeError: It is not valid JSON, or is nested deeper than `MAX_DEPTH`.
        ValueError: An object has a key twice.
        UnicodeDecodeError: The bytes are not UTF-8.
    """
    data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    if data.count(b"[") + data.count(b"{") > MAX_DEPTH:
        positions, depths = _depths(data)
        if depths.max(initial=0) > MAX_DEPTH:
            before = data[: int(positions[np.argmax(depths > MAX_DEPTH)])].decode("utf-8", "surrogatepass")
            problem = f"nested deeper than {MAX_DEPTH} levels"
            raise json.JSONDecodeError(problem, before + "[", len(before))
    return _DECODER.decode(text if isinstance(text, str) else text.decode("utf-8-sig"))


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make an object. A repeated key is an error; `json` would silently use its last value."""
    value = dict(pairs)
    if len(value) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for index, name in enumerate(names) if name in names[:index])
        raise ValueError(f"the name {twice[:80]!r} comes twice in one object")
    return value


_DECODER: Final = json.JSONDecoder(object_pairs_hook=_object)


def has_deep_rows(file: Path) -> bool:
    """Whether JSON lines may be nested deeper than `MAX_DEPTH`. Much faster than parsing them."""
    depth = 0
    rest = b""
    with file.open("rb") as opened:
        while block := opened.read(_BLOCK):
            whole, newline, rest = (rest + block).rpartition(b"\n")
            if newline and (depth or not _are_flat_lines(whole + newline)):
                _, depths = _depths(whole, depth)
                if depths.max(initial=0) > MAX_DEPTH:
                    return True
                depth = int(depths[-1]) if len(depths) else depth
    _, depths = _depths(rest, depth)
    return bool(depths.max(initial=0) > MAX_DEPTH)


def _are_flat_lines(lines: bytes) -> bool:
    """Whether every line begins and ends with a brace, so that it is a complete value, and has few brackets."""
    codes = np.frombuffer(lines, np.uint8)
    ends = np.flatnonzero(codes == ord("\n"))
    before, after = codes[np.maximum(ends - 1, 0)], codes[np.minimum(ends + 1, len(codes) - 1)]
    breaks = [ord("\n"), ord("\r")]
    if codes[0] != ord("{") or not (np.isin(before, [ord("}"), *breaks]) & np.isin(after, [ord("{"), *breaks])).all():
        return False
    opening = np.flatnonzero((codes == ord("{")) | (codes == ord("[")))
    return int(np.diff(np.searchsorted(opening, ends), prepend=0).max(initial=0)) <= MAX_DEPTH


def _depths(data: bytes, start: int = 0) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the positions of brackets outside of strings, and the depth after each. A string ends with its line."""
    if b"\\" in data:
        data = data.replace(b"\\\\", b"__").replace(b'\\"', b"__")
    codes = np.frombuffer(data, np.uint8)
    quotes = np.flatnonzero(codes == ord('"'))
    ends = np.flatnonzero(codes == ord("\n"))
    steps = _STEPS[codes]
    positions = np.flatnonzero(steps)
    of_earlier_lines = np.concatenate([[0], np.searchsorted(quotes, ends)])[np.searchsorted(ends, positions)]
    # A bracket after an even number of quotes of its line is outside of strings.
    positions = positions[(np.searchsorted(quotes, positions) - of_earlier_lines) % 2 == 0]
    return positions, start + np.cumsum(steps[positions], dtype=np.int64)
