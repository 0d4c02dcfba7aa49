r"""Output to terminals: every line that is printed or logged goes through this module.

Names, captions and reasons come from data, and terminals interpret some characters: an escape sequence can write the
clipboard, a line break can forge a line, a bidi control can reverse text. `visible` writes such characters as
escapes (`\x1b`, `\n`, `\u202e`), `say` prints lines of visible text, `styled` makes them for rich, `get_logger` logs
them, and `emit` prints JSON that holds none of them and still reads back to the same values.
"""

from __future__ import annotations

import codecs
import io
import json
import logging
import math
import re
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, TextIO

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

__all__ = [
    "CONTROLS",
    "about",
    "console",
    "emit",
    "encode_all",
    "finite_or_null",
    "get_logger",
    "json_line",
    "log_to_stderr",
    "say",
    "size_text",
    "styled",
    "time_text",
    "visible",
]

CONTROLS: Final = (
    "\x00-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e007f"
)
"""A regular expression's class: C0 and C1 controls, DEL, bidi controls, line and paragraph separators, characters
without a width, surrogates and tags. The joiners U+200C and U+200D are allowed: scripts and emoji need them."""

_CONTROL: Final = re.compile(f"[{CONTROLS}]")
_WORD: Final = 256
"""Longest word, such as a path or an id, that is printed in full."""
_LONG: Final = re.compile(rf"\S{{{_WORD + 1},}}")
_PLAIN: Final = str.maketrans({"×": "x", "…": "...", "–": "-", "—": "-", "→": "->", "█": "#", "▏": "|"})
"""ASCII replacements of the other characters in calotype's messages."""


def visible(value: object, limit: int | None = None) -> str:
    """Return one line of text without characters that a terminal interprets.

    Args:
        value: Text that may come from data, or any value, as `str` writes it.
        limit: Most characters; longer text loses its middle. None is no limit.
    """
    text = _CONTROL.sub(lambda found: _escape(found[0]), str(value))
    return text if limit is None else _shortened(text, limit)


def about(name: str, reason: str) -> str:
    """Return `name: reason`, or only the reason if it starts with the name."""
    return reason if reason.startswith(f"{name}: ") else f"{name}: {reason}"


def size_text(count: float | None) -> str:
    """Format bytes in powers of ten: `4.2 MB`; `–` if they are not known."""
    if count is None:
        return "–"
    value = float(count)
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if round(value, 1) < 1000 or unit == "TB":
            break
        value /= 1000
    return f"{value:,.0f} {unit}" if unit == "B" or value >= 99.95 else f"{value:.1f} {unit}"


def time_text(seconds: float | None) -> str:
    """Format seconds: `12 ms`, `4 min 10 s`, `25 min`, `2 h 5 min`, `41 h`, `12 days`; `–` if unknown."""
    if seconds is None or not math.isfinite(seconds):
        return "–"
    if seconds < 0.1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 59.5:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 10:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    if seconds < 3570:
        return f"{seconds / 60:.0f} min"
    hours, minutes = divmod(round(seconds / 60), 60)
    if hours < 10:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    hours = round(seconds / 3600)
    return f"{hours} h" if hours < 72 else f"{round(seconds / 86400):,} days"


def say(*lines: object, error: bool = False) -> None:
    """Print lines on standard output, or standard error, at once. Words of more than 256 characters are shortened."""
    file = sys.stderr if error else sys.stdout
    print(*map(_line, lines), sep="\n", file=file, flush=True)


def emit(value: Any) -> None:
    """Print one line of JSON on standard output."""
    print(json_line(value, ascii="utf" not in (sys.stdout.encoding or "").lower()), flush=True)


def json_line(value: Any, *, ascii: bool = False) -> str:
    r"""Return JSON of one line in which control characters, or all characters beyond ASCII, are `\uXXXX`.

    Strict JSON: NaN and inf are null.
    """
    text = json.dumps(finite_or_null(value), ensure_ascii=ascii, allow_nan=False)
    return _CONTROL.sub(lambda found: json.dumps(found[0])[1:-1], text)


def finite_or_null(value: Any) -> Any:
    """Return plain values with None in place of NaN and inf, which JSON lacks."""
    if isinstance(value, Mapping):
        return {key: finite_or_null(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite_or_null(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def console(*, error: bool = False) -> Console:
    """Return rich's console for standard output, or standard error, with markup turned off."""
    from rich.console import Console

    return Console(stderr=error, markup=False, highlight=False, emoji=False)


def styled(*parts: str | tuple[str, str]) -> Text:
    """Return visible text for `console()`, of plain parts and of (text, style) pairs."""
    from rich.text import Text

    pairs = [(part, "") if isinstance(part, str) else part for part in parts]
    return Text.assemble(*((_line(text), style) for text, style in pairs))


def get_logger(name: str) -> logging.Logger:
    """Return the logger of this name; its messages become visible text, whatever the formatter."""
    logger = logging.getLogger(name)
    logger.addFilter(_make_visible)
    return logger


def log_to_stderr() -> None:
    """Print the messages of all libraries that their loggers' levels let through on standard error, as visible text."""
    handler = _StandardError()
    handler.addFilter(_make_visible)
    logging.basicConfig(format="%(message)s", handlers=[handler])


class _StandardError(logging.StreamHandler[TextIO]):
    """A handler for standard error as it is at each message: a progress bar replaces it, and prints above itself."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:
        return sys.stderr

    @stream.setter
    def stream(self, value: TextIO) -> None:
        raise AttributeError("stream: it is sys.stderr")


def encode_all() -> None:
    """Make standard output and error accept every character: as itself, in ASCII, or as an escape."""
    codecs.register_error(__name__, _encode)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=__name__)


def _line(value: object) -> str:
    return _LONG.sub(lambda found: _shortened(found[0], _WORD), visible(value))


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def _shortened(text: str, limit: int) -> str:
    if len(text) <= limit:
        return text
    cut = f"…({len(text):,} characters)…"
    kept = max(limit - len(cut), 2)
    tail = kept // 4
    return text[: kept - tail] + cut + text[len(text) - tail :]


def _make_visible(record: logging.LogRecord) -> bool:
    record.msg, record.args = _line(record.getMessage()), ()
    if record.exc_info and not record.exc_text:
        traceback = logging.Formatter().formatException(record.exc_info)
        record.exc_text = "\n".join(map(_line, traceback.split("\n")))
    return True


def _encode(error: UnicodeError) -> tuple[str | bytes, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    plain = error.object[error.start : error.end].translate(_PLAIN)
    return plain.encode("ascii", "backslashreplace").decode("ascii"), error.end
