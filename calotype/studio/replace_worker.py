"""Find and replace in a separate process, which can be killed if a pattern takes too long.

Python's `re` holds the GIL during a search, so a thread could not be stopped and would block the server. This file
is run by its path (see `replace.py`) and imports nothing of calotype: it starts in about 20 ms. It reads JSON,
`{"pattern", "flags", "replacement", "texts": [[text, …] for each row]}`, and writes JSON,
`{"changed": [[row, caption, new text, [[start, end, new start, new end], …]], …]}` or `{"error": …, "position": …}`.
"""

from __future__ import annotations

import json
import re
import sys
from typing import Any

__all__ = ["main"]


def main() -> None:
    """Read a task from standard input, and write its result to standard output."""
    json.dump(_answer(json.load(sys.stdin)), sys.stdout)


def _answer(task: dict[str, Any]) -> dict[str, Any]:
    try:
        pattern = re.compile(task["pattern"], task["flags"])
    except (re.error, OverflowError, RecursionError) as error:
        return {"error": f"the pattern can't be read: {error}", "position": getattr(error, "pos", None)}
    try:
        # `expand` returns an empty text for a group that did not participate.
        changed = [
            [row, caption, *made]
            for row, texts in enumerate(task["texts"])
            for caption, text in enumerate(texts)
            if (made := _replaced(pattern, task["replacement"], text)) is not None
        ]
    except (re.error, IndexError) as error:
        return {"error": f"the replacement can't be read: {error}", "position": None}
    return {"changed": changed}


def _replaced(pattern: re.Pattern[str], replacement: str, text: str) -> tuple[str, list[list[int]]] | None:
    """Return the new text and the spans of each match before and after; None where the text does not change."""
    pieces, spans = [], []
    done = length = 0
    for match in pattern.finditer(text):
        new = match.expand(replacement)
        kept = text[done : match.start()]
        length += len(kept)
        spans.append([match.start(), match.end(), length, length + len(new)])
        length += len(new)
        pieces += [kept, new]
        done = match.end()
    made = "".join([*pieces, text[done:]])
    return (made, spans) if made != text else None


if __name__ == "__main__":
    main()
