"""Find and replace, run as a program of its own: a pattern that never ends can then be stopped from outside.

Python's `re` holds the interpreter for as long as it looks, so that a thread could neither be stopped nor let the
server answer. This file is run by its path (see `replace.py`), and imports nothing of calotype: it starts in some
20 ms. It reads JSON, `{"pattern", "flags", "replacement", "texts": [[text, …] for each row]}`, and answers with JSON:
`{"changed": [[row, place, new text, [[start, end, new start, new end], …]], …]}`, or `{"error": …, "position": …}`.
"""

from __future__ import annotations

import json
import re
import sys
from typing import Any

__all__ = ["main"]


def main() -> None:
    """From standard input to standard output."""
    json.dump(_answer(json.load(sys.stdin)), sys.stdout)


def _answer(task: dict[str, Any]) -> dict[str, Any]:
    try:
        pattern = re.compile(task["pattern"], task["flags"])
    except (re.error, OverflowError, RecursionError) as error:
        return {"error": f"the pattern can't be read: {error}", "position": getattr(error, "pos", None)}
    try:
        # With a group that took no part in the match, `expand` gives an empty text.
        changed = [
            [row, place, *made]
            for row, texts in enumerate(task["texts"])
            for place, text in enumerate(texts)
            if (made := _replaced(pattern, task["replacement"], text)) is not None
        ]
    except (re.error, IndexError) as error:
        return {"error": f"the replacement can't be read: {error}", "position": None}
    return {"changed": changed}


def _replaced(pattern: re.Pattern[str], replacement: str, text: str) -> tuple[str, list[list[int]]] | None:
    """The new text, and where each match was and is; None where the text stays as it is."""
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
