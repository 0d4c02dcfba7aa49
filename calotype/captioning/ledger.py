"""`CaptionLedger`: every answer that a captioner gave, appended as it came; so that none is ever asked for twice."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import threading
import time
from collections import defaultdict
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Final

from calotype.editing.files import HOUSE, locked
from calotype.errors import EditError

try:
    import fcntl
except ImportError:  # Windows has none: there, parts of killed runs stay apart, and are read all the same
    fcntl = None  # type: ignore[assignment]

__all__ = ["Answer", "CaptionLedger", "ledger_folder"]

_WHOLE: Final = "ledger.jsonl"
"""What the parts of finished runs are merged into."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What became of one question about one picture: a line of the ledger."""

    key: str
    """Hash of the picture's bytes and of everything that was asked, with what, and how."""
    picture: str
    """xxh3-128 of the picture's file, hexadecimal: whatever it is called, and wherever it lies."""
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


_FIELDS: Final = frozenset(field.name for field in fields(Answer))


def ledger_folder(root: Path) -> Path:
    """Where the ledger of a dataset is: beside the data, so that it goes where that goes."""
    return root / HOUSE / "captions"


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
        self._answers: dict[str, Answer] = {}
        self._of_picture: dict[str, list[Answer]] = defaultdict(list)
        self.refresh()

    def refresh(self) -> None:
        """Reads what others have written meanwhile."""
        try:
            # The parts first: what is merged between the two readings is then found in the whole.
            files = sorted(self.folder.glob("*.jsonl"), key=lambda file: file.name == _WHOLE)
            for file in files:
                with contextlib.suppress(FileNotFoundError):
                    for line in file.read_bytes().split(b"\n"):
                        answer = _read(line)
                        if answer is not None:
                            self.learn(answer)
        except OSError as error:
            raise EditError(f"{self.folder}: the ledger of captions can't be read: {error.strerror}") from error

    def __len__(self) -> int:
        return len(self._answers)

    def get(self, key: str) -> Answer | None:
        """The answer to a question: a caption if it ever gave one, else the last failure."""
        return self._answers.get(key)

    def captions(self, picture: str) -> list[Answer]:
        """Every answer to any question about a picture that gave a caption."""
        with self._lock:
            return list(self._of_picture.get(picture, ()))

    def learn(self, answer: Answer) -> None:
        """Knows an answer from now on, without writing it."""
        with self._lock:
            known = self._answers.get(answer.key)
            if known is None or (known.text is None and (answer.text is not None or answer.at >= known.at)):
                self._answers[answer.key] = answer
            if answer.text is not None and (known is None or known.text != answer.text):
                self._of_picture[answer.picture].append(answer)

    def append(self, answer: Answer) -> None:
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
        self.folder.mkdir(parents=True, exist_ok=True)
        self._part = self.folder / f"{time.strftime('%Y-%m-%d_%H-%M-%S')}_{os.getpid()}_{secrets.token_hex(3)}.jsonl"
        self._file = os.open(self._part, os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_WRONLY, 0o666)
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
        if not self.folder.is_dir():
            return
        with locked(self.root), contextlib.suppress(OSError):  # unmerged parts are read as well as merged ones
            self._merge()

    def _merge(self) -> None:
        for part in sorted(self.folder.glob("*.jsonl")):
            if part.name == _WHOLE:
                continue
            with part.open("rb") as opened:
                if part != self._part and not _nobody_writes(opened.fileno()):
                    continue
                lines = opened.read().split(b"\n")
                good = b"".join(line + b"\n" for line in lines if _read(line) is not None)
                with (self.folder / _WHOLE).open("ab") as whole:
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


def _read(line: bytes) -> Answer | None:
    """The answer in a line; None for a torn one. What a newer version may have added is passed over."""
    try:
        found: Any = json.loads(line)
        return Answer(**{name: value for name, value in found.items() if name in _FIELDS})
    except (ValueError, TypeError, AttributeError):
        return None
