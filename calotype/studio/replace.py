"""Find and replace in captions: returns the changes without writing them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from calotype.errors import CalotypeError
from calotype.studio import replace_worker

__all__ = ["Change", "ReplaceError", "find_and_replace"]

_SECONDS: Final = 5.0
_MAX_CHARACTERS: Final = 10_000
"""Maximum characters of a resulting caption: bounds the memory of a replacement."""


class ReplaceError(CalotypeError, ValueError):
    """The pattern or the replacement is not valid.

    Args:
        message: Why, as a sentence.
        position: Index of the invalid character in the pattern; None if unknown.
    """

    def __init__(self, message: str, *, position: int | None = None) -> None:
        super().__init__(message)
        self.position = position


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """One caption that would change."""

    row: int
    """Index of the row."""
    caption: int
    """Index of the caption in the row."""
    before: str
    after: str
    spans: tuple[tuple[int, int, int, int], ...]
    """For each match (start, end) before and (start, end) after."""


def find_and_replace(
    captions: Sequence[Sequence[str]], find: str, replacement: str, *, regex: bool = False, ignore_case: bool = False
) -> list[Change]:
    r"""Return what a replacement would change.

    Args:
        captions: The captions of each row.
        find: A text, or with `regex` a pattern of Python's `re` (`^` and `$` are a caption's ends).
        replacement: A text; with `regex`, `\1` and `\\g<name>` are what a group matched.
        regex: Whether `find` is a pattern.
        ignore_case: Whether to match case-insensitively.

    Raises:
        ReplaceError: `find` is empty; the pattern or replacement is not valid; a caption would exceed 10,000
            characters; or the search takes longer than 5 seconds.
    """
    if not find:
        raise ReplaceError("the search text is empty")
    task = {
        "pattern": find if regex else re.escape(find),
        "flags": int(re.IGNORECASE if ignore_case else 0),
        "replacement": replacement if regex else replacement.replace("\\", r"\\"),
        "texts": [list(some) for some in captions],
    }
    answer = _run(json.dumps(task))
    if "error" in answer:
        raise ReplaceError(answer["error"], position=answer["position"] if regex else None)
    changes = [
        Change(
            row=row,
            caption=caption,
            before=captions[row][caption],
            after=after,
            spans=tuple((spans[0], spans[1], spans[2], spans[3]) for spans in found),
        )
        for row, caption, after, found in answer["changed"]
    ]
    longest = max((len(change.after) for change in changes), default=0)
    if longest > _MAX_CHARACTERS:
        raise ReplaceError(
            f"a caption would grow to {longest:,} characters; at most {_MAX_CHARACTERS:,} are written at a time"
        )
    return changes


def _run(task: str) -> dict[str, Any]:
    # -I: imports do not depend on the environment or the current folder; -S: faster start without `site`.
    command = [sys.executable, "-I", "-S", "-X", "utf8", str(Path(replace_worker.__file__))]
    try:
        done = subprocess.run(command, input=task.encode(), capture_output=True, timeout=_SECONDS, check=True)
    except subprocess.TimeoutExpired:
        raise ReplaceError(
            f"the search took longer than {_SECONDS:g} seconds and was stopped: parts that repeat inside parts that "
            "repeat, such as (a+)+, can take for ever; write the pattern without them, or filter fewer rows"
        ) from None
    except subprocess.CalledProcessError as error:
        raise ReplaceError(f"find and replace failed: {error.stderr.decode(errors='replace').strip()}") from error
    answer = json.loads(done.stdout)
    assert isinstance(answer, dict)
    return answer
