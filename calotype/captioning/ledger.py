"""`CaptionLedger`: every answer that a captioner gave, appended as it came; so that none is ever asked for twice."""

from __future__ import annotations

import contextlib
import json
import math
import os
import secrets
import threading
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from calotype.editing.hidden_folder import HIDDEN_FOLDER, hidden_folder, locked, open_hidden_file
from calotype.errors import EditError
from calotype.manifest.strict_json import loads
from calotype.terminal import get_logger, visible

try:
    import fcntl
except ImportError:  # Windows has none: there, parts of killed runs stay apart, and are read all the same
    fcntl = None  # type: ignore[assignment]

__all__ = ["CaptionLedger", "LedgerEntry", "ledger_folder"]

_log = get_logger(__name__)

_WHOLE: Final = "ledger.jsonl"
"""What the parts of finished runs are merged into."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LedgerEntry:
    """What became of one question about one image: a line of the ledger."""

    key: str
    """Hash of the image's bytes and of everything that was asked, with what, and how."""
    picture: str
    """xxh3-128 of the image's file, hexadecimal: whatever it is called, and wherever it lies."""
    recipe: str
    """Hash of backend, model, preset and parameters: what the questions of a run have in common."""
    id: str
    """The row's, at that time; for people."""
    backend: str
    model: str
    preset: str
    """Its name; for people."""
    seed: int
    text: str | None = None
    """The caption; None where there is none."""
    error: str | None = None
    """Why there is none."""
    kind: str | None = None
    """A short word for that."""
    finish_reason: str | None = None
    at: float = 0.0
    """Unix time."""


_TYPES: Final[Mapping[str, type]] = {
    **dict.fromkeys(("key", "picture", "recipe", "id", "backend", "model", "preset"), str),
    "seed": int,
    **dict.fromkeys(("text", "error", "kind", "finish_reason"), str),
    "at": float,
}
"""Field of an answer → its type in the file."""
_OPTIONAL: Final = frozenset({"text", "error", "kind", "finish_reason", "at"})


def ledger_folder(root: Path) -> Path:
    """Where the ledger of a dataset is: beside the data, so that it goes where that goes."""
    return root / HIDDEN_FOLDER / "captions"


class CaptionLedger:
    """The answers of all runs over one dataset, and the file that this run appends its own to.

    Each run (each worker of a run) writes a part of its own, a line an answer, in one piece. `close` merges it into
    `ledger.jsonl`, and with it what killed runs have left. A line that was torn by a crash is passed over.

    Args:
        root: The dataset's folder; the ledger is in `root/.calotype/captions`.

    Raises:
        EditError: What is there can't be read.
    """

    def __init__(self, root: Path) -> None:
        self.root, self.folder = root, ledger_folder(root)
        self._lock = threading.Lock()
        self._file: int | None = None
        self._part: Path | None = None
        self._answers: dict[str, LedgerEntry] = {}
        self._of_picture: dict[str, list[LedgerEntry]] = defaultdict(list)
        self._named: set[tuple[Path, str]] = set()
        self.refresh()

    def refresh(self) -> None:
        """Reads what others have written meanwhile. What is no answer is passed over, and named in the log."""
        try:
            # The parts first: what is merged between the two readings is then found in the whole.
            files = sorted(self.folder.glob("*.jsonl"), key=lambda file: file.name == _WHOLE)
            for file in files:
                with contextlib.suppress(FileNotFoundError):
                    self._learn_file(file)
        except OSError as error:
            raise EditError(f"{self.folder}: the ledger of captions can't be read: {error.strerror}") from error

    def _learn_file(self, file: Path) -> None:
        """Learns the answers of a file. One that a crash cut off at the end of the file is not worth a word."""
        if file.is_symlink() or not file.is_file():
            self._name(file, "it is a link, or no file, and is passed over; remove it")
            return
        *lines, last = file.read_bytes().split(b"\n")
        bad: list[str] = []
        for number, line in enumerate([*lines, last], 1):
            try:
                if line.strip():
                    self.learn(_read(line))
            except ValueError as error:
                if number <= len(lines):
                    bad.append(f"line {number}: {error}")
        if bad:
            self._name(file, f"{len(bad):,} of {len(lines):,} lines are no answers and are passed over ({bad[0]})")

    def _name(self, file: Path, what: str) -> None:
        if (file, what) not in self._named:
            self._named.add((file, what))
            _log.warning("%s: %s", file, what)

    def __len__(self) -> int:
        return len(self._answers)

    def get(self, key: str) -> LedgerEntry | None:
        """The answer to a question: a caption if it ever gave one, else the last failure."""
        return self._answers.get(key)

    def captions(self, picture: str) -> list[LedgerEntry]:
        """Every answer to any question about an image that gave a caption."""
        with self._lock:
            return list(self._of_picture.get(picture, ()))

    def learn(self, answer: LedgerEntry) -> None:
        """Knows an answer from now on, without writing it."""
        with self._lock:
            known = self._answers.get(answer.key)
            if known is None or (known.text is None and (answer.text is not None or answer.at >= known.at)):
                self._answers[answer.key] = answer
            if answer.text is not None and (known is None or known.text != answer.text):
                self._of_picture[answer.picture].append(answer)

    def append(self, answer: LedgerEntry) -> None:
        """Writes an answer; when this returns, no end of this process can lose it.

        Raises:
            EditError: It can't be written.
        """
        line = json.dumps(
            {name: value for name, value in asdict(answer).items() if value is not None}, ensure_ascii=False
        )
        with self._lock:
            try:
                if self._file is None:
                    self._open()
                assert self._file is not None
                data = line.encode("utf-8", "backslashreplace") + b"\n"
                while data:
                    data = data[os.write(self._file, data) :]
            except OSError as error:
                raise EditError(f"{self.folder}: the ledger of captions can't be written: {error.strerror}") from error
        self.learn(answer)

    def _open(self) -> None:
        hidden_folder(self.root, self.folder.name)
        self._part = self.folder / f"{time.strftime('%Y-%m-%d_%H-%M-%S')}_{os.getpid()}_{secrets.token_hex(3)}.jsonl"
        self._file = open_hidden_file(self._part, os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_WRONLY)
        if fcntl is not None:
            with contextlib.suppress(OSError):  # held for as long as this run lives: nobody merges it before
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def close(self) -> None:
        """Puts this run's answers with the others', and what killed runs left. Harmless when repeated."""
        with self._lock:
            if self._file is not None:
                with contextlib.suppress(OSError):
                    os.fsync(self._file)
                os.close(self._file)
                self._file = None
        if not self.folder.is_dir() or self.folder.is_symlink() or self.folder.parent.is_symlink():
            return
        with locked(self.root), contextlib.suppress(OSError):  # unmerged parts are read as well as merged ones
            self._merge()

    def _merge(self) -> None:
        for part in sorted(self.folder.glob("*.jsonl")):
            if part.name == _WHOLE or part.is_symlink() or not part.is_file():
                continue
            with part.open("rb") as opened:
                if part != self._part and not _nobody_writes(opened.fileno()):
                    continue
                good = b"".join(line + b"\n" for line in opened.read().split(b"\n") if _is_answer(line))
                flags = os.O_CREAT | os.O_APPEND | os.O_WRONLY
                with os.fdopen(open_hidden_file(self.folder / _WHOLE, flags), "ab") as whole:
                    # A merge that was cut short may have left half a line: what follows begins one of its own.
                    whole.write((b"\n" if whole.tell() else b"") + good)
                    whole.flush()
                    os.fsync(whole.fileno())
                part.unlink()


def _nobody_writes(file: int) -> bool:
    if fcntl is None:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _is_answer(line: bytes) -> bool:
    try:
        _read(line)
    except ValueError:
        return False
    return True


def _read(line: bytes) -> LedgerEntry:
    """The answer in a line. What a newer version may have added is passed over.

    Raises:
        ValueError: It is none, as after a crash, or in a dataset from elsewhere.
    """
    found: Any = loads(line)
    if not isinstance(found, dict):
        raise ValueError("no JSON object")
    values: dict[str, Any] = {}
    for name, kind in _TYPES.items():
        value = found.get(name)
        if value is None and name in _OPTIONAL:
            continue
        if kind is float and type(value) is int and abs(value) < 1 << 53:
            value = float(value)
        if type(value) is not kind or (isinstance(value, float) and not math.isfinite(value)):
            raise ValueError(f"{name}: found {visible(repr(value), 60)}, expected {kind.__name__}")
        values[name] = value
    return LedgerEntry(**values)
