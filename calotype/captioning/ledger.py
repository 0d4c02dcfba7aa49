"""`CaptionLedger`: every result of a captioner, appended immediately, so that no prompt runs twice."""

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
except ImportError:  # Windows: parts of killed runs are not merged, but they are read
    fcntl = None  # type: ignore[assignment]

__all__ = ["CaptionLedger", "LedgerEntry", "ledger_folder"]

_log = get_logger(__name__)

_WHOLE: Final = "ledger.jsonl"
"""The file that the parts of finished runs are merged into."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LedgerEntry:
    """The result of one prompt for one image: a line of the ledger. Fields are named as in the file."""

    key: str
    """Hash of the image, the prompt, the backend, the model and its parameters."""
    picture: str
    """xxh3-128 of the image file in hexadecimal, so that it may be renamed and moved."""
    recipe: str
    """Hash of backend, model, parameters and preset: equal for all prompts of a preset in a run."""
    id: str
    """The row's id at that time; informative."""
    backend: str
    model: str
    preset: str
    """Name of the preset; informative."""
    seed: int
    text: str | None = None
    """The caption; None without one."""
    error: str | None = None
    """Why there is no caption."""
    kind: str | None = None
    """A short word for the error."""
    finish_reason: str | None = None
    at: float = 0.0
    """Unix time."""


_TYPES: Final[Mapping[str, type]] = {
    **dict.fromkeys(("key", "picture", "recipe", "id", "backend", "model", "preset"), str),
    "seed": int,
    **dict.fromkeys(("text", "error", "kind", "finish_reason"), str),
    "at": float,
}
"""Field → its type in the file."""
_OPTIONAL: Final = frozenset({"text", "error", "kind", "finish_reason", "at"})


def ledger_folder(root: Path) -> Path:
    """Return the folder of a dataset's ledger: inside the data, so that it moves with it."""
    return root / HIDDEN_FOLDER / "captions"


class CaptionLedger:
    """The results of all runs over one dataset, and the file that this run appends to.

    Each run (on a cluster, each actor) writes a file of its own, one line per result. `close` merges it and those of
    killed runs into `ledger.jsonl`. A line that a crash cut off is skipped.

    Args:
        root: The dataset's folder; the ledger is in `root/.calotype/captions`.

    Raises:
        EditError: The ledger can't be read.
    """

    def __init__(self, root: Path) -> None:
        self.root, self.folder = root, ledger_folder(root)
        self._lock = threading.Lock()
        self._file: int | None = None
        self._part: Path | None = None
        self._entries: dict[str, LedgerEntry] = {}
        self._by_image: dict[str, list[LedgerEntry]] = defaultdict(list)
        self._warned: set[tuple[Path, str]] = set()
        self.refresh()

    def refresh(self) -> None:
        """Read what other runs have written since. Invalid lines are skipped and logged."""
        try:
            # Parts first: one that is merged while reading is then found in the merged file.
            files = sorted(self.folder.glob("*.jsonl"), key=lambda file: file.name == _WHOLE)
            for file in files:
                with contextlib.suppress(FileNotFoundError):
                    self._read_file(file)
        except OSError as error:
            raise EditError(f"{self.folder}: the ledger of captions can't be read: {error.strerror}") from error

    def _read_file(self, file: Path) -> None:
        """Read the entries of a file. A last line that a crash cut off is not logged."""
        if file.is_symlink() or not file.is_file():
            self._warn(file, "it is a link or not a regular file, and is skipped; remove it")
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
            self._warn(file, f"{len(bad):,} of {len(lines):,} lines are not valid entries and are skipped ({bad[0]})")

    def _warn(self, file: Path, what: str) -> None:
        if (file, what) not in self._warned:
            self._warned.add((file, what))
            _log.warning("%s: %s", file, what)

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: str) -> LedgerEntry | None:
        """Return the result of a prompt: a caption if there ever was one, else the last failure."""
        return self._entries.get(key)

    def captions(self, image_hash: str) -> list[LedgerEntry]:
        """Return every caption of an image, of any prompt."""
        with self._lock:
            return list(self._by_image.get(image_hash, ()))

    def learn(self, entry: LedgerEntry) -> None:
        """Add an entry in memory, without writing it."""
        with self._lock:
            known = self._entries.get(entry.key)
            if known is None or (known.text is None and (entry.text is not None or entry.at >= known.at)):
                self._entries[entry.key] = entry
            if entry.text is not None and (known is None or known.text != entry.text):
                self._by_image[entry.picture].append(entry)

    def append(self, entry: LedgerEntry) -> None:
        """Write an entry; once this returns, the end of this process can't lose it.

        Raises:
            EditError: It can't be written.
        """
        line = json.dumps(
            {name: value for name, value in asdict(entry).items() if value is not None}, ensure_ascii=False
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
        self.learn(entry)

    def _open(self) -> None:
        hidden_folder(self.root, self.folder.name)
        self._part = self.folder / f"{time.strftime('%Y-%m-%d_%H-%M-%S')}_{os.getpid()}_{secrets.token_hex(3)}.jsonl"
        self._file = open_hidden_file(self._part, os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_WRONLY)
        if fcntl is not None:
            with contextlib.suppress(OSError):  # locked until this run ends, so that no other run merges it before
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def close(self) -> None:
        """Merge this run's file and those of killed runs. May be called again."""
        with self._lock:
            if self._file is not None:
                with contextlib.suppress(OSError):
                    os.fsync(self._file)
                os.close(self._file)
                self._file = None
        if not self.folder.is_dir() or self.folder.is_symlink() or self.folder.parent.is_symlink():
            return
        with locked(self.root), contextlib.suppress(OSError):  # parts that are not merged are read, too
            self._merge()

    def _merge(self) -> None:
        for part in sorted(self.folder.glob("*.jsonl")):
            if part.name == _WHOLE or part.is_symlink() or not part.is_file():
                continue
            with part.open("rb") as opened:
                if part != self._part and not _has_no_writer(opened.fileno()):
                    continue
                good = b"".join(line + b"\n" for line in opened.read().split(b"\n") if _is_entry(line))
                flags = os.O_CREAT | os.O_APPEND | os.O_WRONLY
                with os.fdopen(open_hidden_file(self.folder / _WHOLE, flags), "ab") as whole:
                    # An interrupted merge may have left half a line: start a new one.
                    whole.write((b"\n" if whole.tell() else b"") + good)
                    whole.flush()
                    os.fsync(whole.fileno())
                part.unlink()


def _has_no_writer(file: int) -> bool:
    if fcntl is None:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _is_entry(line: bytes) -> bool:
    try:
        _read(line)
    except ValueError:
        return False
    return True


def _read(line: bytes) -> LedgerEntry:
    """Parse a line. Unknown fields, which a newer version may have added, are ignored.

    Raises:
        ValueError: It is not an entry.
    """
    found: Any = loads(line)
    if not isinstance(found, dict):
        raise ValueError("not a JSON object")
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
