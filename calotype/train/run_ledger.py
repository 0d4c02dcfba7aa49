"""The ledger of a run: `ledger.jsonl` in its folder, each thing once, what came before a resume included."""

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
    """A ledger that notes nothing twice. The ranks of a run append to one file, a line at a time, and `settle` it.

    Args:
        path: The file. What is in it is read: the run that is resumed has noted it.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        data = path.read_bytes() if path.exists() else b""
        for line in data.splitlines():
            with suppress(ValueError, TypeError):  # cut off by a kill
                super().append(LedgerEntry(**json.loads(line)))
        if data and not data.endswith(b"\n"):  # what follows begins a line of its own
            with suppress(OSError), path.open("ab") as file:
                file.write(b"\n")
        self.path = path
        self._known = set(self)

    @staticmethod
    def begin(path: Path) -> None:
        """Empties the file: what another run noted is not true of one that begins.

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
        except OSError as error:  # a full disk: no reason to end a training, and the counts are kept
            _log.warning("%s: can't be written (%s): what comes now is counted only", self.path, error.strerror)
            self.path = None

    def settle(self) -> None:
        """Leaves in the file what two ranks have noted once; for one of them, when none will note any more."""
        if self.path is not None and self.path.exists():
            lines = dict.fromkeys(self.path.read_bytes().splitlines(keepends=True))
            try:
                replace_file(self.path, lines)
            except OSError:  # a full disk: the file stays as it was
                return


def count_notes(ledger: Ledger) -> dict[str, int]:
    """How many images, rows or files the ledgers of all ranks name, by kind. Every rank calls it."""
    noted: list[tuple[str, str]] = gather_object(sorted({(entry.kind, entry.id) for entry in ledger}))
    return dict(sorted(Counter(kind for kind, _ in set(noted)).items()))
