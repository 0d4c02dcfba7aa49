"""`Scans`: background scans of all rows: captions, token counts, image sizes and, on request, duplicates."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

from calotype.check.duplicates import duplicate_findings
from calotype.check.facts import scan_facts
from calotype.images import ImageReader, scan_sizes
from calotype.studio.rows import Rows
from calotype.studio.tokens import TokenCounter
from calotype.terminal import get_logger

__all__ = ["Scans"]

_log = get_logger(__name__)

_CHUNK: Final = 256
"""Rows per step; a scan can be stopped between steps, and waits there while captions are written."""


@dataclass(slots=True)
class _Scan:
    state: Literal["idle", "running", "done", "failed"] = "idle"
    done: int = 0
    total: int = 0
    error: str | None = None


class Scans:
    """One thread that runs the scans one after the other, and again when rows change.

    Args:
        rows: The rows to scan; updated with the results.
        reader: Reads their images.
        counter: Counts their tokens.
        writing: The lock that is held while captions are written.
    """

    def __init__(
        self, rows: Rows, reader: ImageReader, counter: TokenCounter, *, writing: AbstractContextManager[Any]
    ) -> None:
        self._rows, self._reader, self._counter, self._writing = rows, reader, counter, writing
        self._scans = {name: _Scan() for name in ("captions", "sizes", "tokens", "duplicates")}
        self._duplicates_wanted = False
        self._wake, self._ending = threading.Event(), False
        self._thread = threading.Thread(target=self._run, name="calotype-studio-scans", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._wake.set()
        self._thread.start()

    def stop(self) -> None:
        """Stop after the current step, and wait for it."""
        self._ending = True
        self._wake.set()
        self._thread.join()

    def wake(self) -> None:
        """Scan rows that have changed."""
        self._wake.set()

    def want_duplicates(self) -> None:
        """Start the scan for duplicates. It decodes every image once; the results are cached across runs."""
        self._duplicates_wanted = True
        if not self._rows.duplicates_known and self._scans["duplicates"].state != "running":
            self._scans["duplicates"] = _Scan(state="running", total=len(self._rows))
            self._wake.set()

    def summary(self) -> dict[str, Any]:
        """Return the progress of each scan for the page."""
        return {name: asdict(scan) for name, scan in self._scans.items()}

    def pending(self, fields: frozenset[str]) -> list[str]:
        """Return the incomplete scans that a filter on these fields needs."""
        found = []
        if any(field == "long" or field.startswith("tokens") for field in fields) and not self._is_done("tokens"):
            found.append("tokens")
        if fields & {"aspect", "bucket", "height", "pixels", "width", "unreadable"} and not self._is_done("sizes"):
            found.append("sizes")
        if "duplicate" in fields and not self._rows.duplicates_known:
            found.append("duplicates")
        return found

    def _is_done(self, name: str) -> bool:
        left = self._rows.without_size() if name == "sizes" else self._rows.without_tokens()
        return not left or self._scans[name].state == "failed"

    def _run(self) -> None:
        while True:
            self._wake.wait()
            self._wake.clear()
            for name, steps in (
                ("captions", self._captions),
                ("tokens", self._tokens),
                ("sizes", self._sizes),
                ("duplicates", self._duplicates),
            ):
                if self._ending:
                    return
                self._one(name, steps)

    def _one(self, name: str, steps: Callable[[], Iterator[tuple[int, int]]]) -> None:
        """Run one scan until it has no work left."""
        try:
            for done, total in steps():
                self._scans[name] = _Scan(state="running", done=done, total=total)
                if self._ending:
                    return
                with self._writing:  # an edit has the interpreter to itself
                    pass
        except _EndingError:
            return
        except Exception as error:  # report it, and keep the thread alive
            _log.warning("studio: the scan for %s failed", name, exc_info=error)
            self._scans[name] = _Scan(state="failed", error=f"{type(error).__name__}: {error}")
            return
        if name != "duplicates" or self._rows.duplicates_known:
            self._scans[name] = _Scan(state="done", done=len(self._rows), total=len(self._rows))

    def _captions(self) -> Iterator[tuple[int, int]]:
        yield len(self._rows) - self._rows.unread, len(self._rows)
        while left := self._rows.read_some():
            yield len(self._rows) - left, len(self._rows)

    def _tokens(self) -> Iterator[tuple[int, int]]:
        while left := self._rows.without_tokens():
            for start in range(0, len(left), _CHUNK):
                yield len(self._rows) - len(left) + start, len(self._rows)
                self.count_tokens(left[start : start + _CHUNK])

    def count_tokens(self, numbers: list[int]) -> None:
        """Count the tokens of these rows now."""
        self._rows.ensure(numbers)
        captions = {number: self._rows.state(number).captions for number in numbers}
        counts = iter(self._counter.counts([text for some in captions.values() for text in some]))
        self._rows.set_tokens({n: (some, tuple(next(counts) for _ in some)) for n, some in captions.items()})

    def _sizes(self) -> Iterator[tuple[int, int]]:
        while left := self._rows.without_size():
            for start in range(0, len(left), _CHUNK):
                yield len(self._rows) - len(left) + start, len(self._rows)
                self._read_sizes(left[start : start + _CHUNK])

    def _read_sizes(self, numbers: list[int]) -> None:
        sizes, errors = scan_sizes([self._rows.refs[n] for n in numbers], self._reader)
        found: dict[int, tuple[int, int] | str] = {
            n: (int(height), int(width)) for n, (height, width) in zip(numbers, sizes.tolist(), strict=True)
        }
        found |= {numbers[index]: error.reason for index, error in errors}
        self._rows.set_sizes(found)

    def _duplicates(self) -> Iterator[tuple[int, int]]:
        while self._duplicates_wanted and not self._rows.duplicates_known:
            with self._rows.lock:
                refs, ids, images = list(self._rows.refs), list(self._rows.ids), self._rows.images_seq
            yield 0, len(refs)
            facts = scan_facts(refs, self._reader, deep=True, threads=os.cpu_count() or 1, progress=self._show_progress)
            numbers = {id: number for number, id in enumerate(ids)}
            findings = duplicate_findings(ids, facts)
            groups = ((numbers[finding.where], *(numbers[id] for id in finding.others)) for finding in findings)
            self._rows.set_duplicates(_others(groups), images_seq=images)

    def _show_progress(self, done: int, total: int) -> None:
        self._scans["duplicates"] = _Scan(state="running", done=done, total=total)
        if self._ending:
            raise _EndingError


def _others(groups: Iterable[Sequence[int]]) -> dict[int, tuple[int, ...]]:
    """Return, for each row, the other members of its connected component."""
    sets: dict[int, set[int]] = {}
    for group in groups:
        whole = set(group).union(*(sets.get(number, ()) for number in group))
        sets |= dict.fromkeys(whole, whole)
    return {number: tuple(sorted(whole - {number})) for number, whole in sets.items()}


class _EndingError(Exception):
    """Aborts a scan from its progress callback; its partial results are cached."""
