"""The ledger of a run: `ledger.jsonl` in its folder, without duplicates, entries before a resume included."""

from __future__ import annotations

import json
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Final

from accelerate.utils import gather_object

from calotype.core.atomic import replace_file
from calotype.errors import ConfigError
from calotype.ledger import Ledger, LedgerEntry
from calotype.terminal import get_logger

__all__ = ["LEDGER_FILE", "RunLedger", "count_notes"]

_log = get_logger("calotype")
LEDGER_FILE: Final = "ledger.jsonl"


class RunLedger(Ledger):
    """A ledger without duplicates. The ranks of a run append lines to one file; `settle` merges them at the end.

    Args:
        path: The file. Existing entries, of the resumed run, are read.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        data = path.read_bytes() if path.exists() else b""
        for line in data.splitlines():
            with suppress(ValueError, TypeError):  # truncated by a kill
                super().append(LedgerEntry(**json.loads(line)))
        if data and not data.endswith(b"\n"):  # start a new line
            with suppress(OSError), path.open("ab") as file:
                file.write(b"\n")
        self.path = path
        self._known = set(self)

    @staticmethod
    def begin(path: Path) -> None:
        """Empty the file for a new run.

        Raises:
            ConfigError: It can't be written.
        """
        try:
            path.write_bytes(b"")
        except OSError as error:
            raise ConfigError(f"{path}: can't be written: {error.strerror}; name another output_dir") from error

    def append(self, entry: LedgerEntry) -> None:
        if entry in self._known:
            return
        self._known.add(entry)
        try:
            super().append(entry)
        except OSError as error:  # a full disk does not end the training; entries are still counted
            _log.warning("%s: can't be written (%s): further entries are only counted", self.path, error.strerror)
            self.path = None

    def settle(self) -> None:
        """Remove duplicate lines of different ranks. One rank calls it, after the last `append` of any rank."""
        if self.path is not None and self.path.exists():
            lines = dict.fromkeys(self.path.read_bytes().splitlines(keepends=True))
            try:
                replace_file(self.path, lines)
            except OSError:  # a full disk: the file stays as it was
                return


def count_notes(ledger: Ledger) -> dict[str, int]:
    """Count the images, rows or files in the ledgers of all ranks, by kind. Every rank calls it."""
    noted: list[tuple[str, str]] = gather_object(sorted({(entry.kind, entry.id) for entry in ledger}))
    return dict(sorted(Counter(kind for kind, _ in set(noted)).items()))
