"""`Studio`: the state behind the page, independent of HTTP."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from calotype.config import Config
from calotype.studio.augment import Augmentations
from calotype.studio.buckets import bucket_namer
from calotype.studio.edits import Editor
from calotype.studio.query import parse_query
from calotype.studio.rows import Rows
from calotype.studio.runs import CaptionRuns
from calotype.studio.scans import Scans
from calotype.studio.source import open_source
from calotype.studio.statistics import statistics
from calotype.studio.thumbnails import Thumbnails
from calotype.studio.tokens import TokenCounter, token_counter
from calotype.studio.watch import Watcher

__all__ = ["SORTS", "Studio"]

_SORTED_BY: Final = {"tokens": "tokens", "pixels": "pixels"}
SORTS: Final = ("order", "id", *_SORTED_BY, "-id", *(f"-{name}" for name in _SORTED_BY))
"""Sort orders; `order` is that of the dataset."""

_NO_FILES: Final = frozenset({"", "id", "folder", "bucket", "aspect", "height", "pixels", "width", "duplicate"})
"""What can be searched and sorted by before the files of all rows have been read."""


class Studio:
    """A dataset under review.

    Args:
        config: The result of `load_config`.
        file: The YAML file of the config; None without one.

    Raises:
        ConfigError: The config is wrong.
        ManifestError: The dataset can't be read.
    """

    def __init__(self, config: Config | Mapping[str, Any], *, file: Path | None = None) -> None:
        config = Config.parse(config)
        self.source = open_source(config, file=file)
        self.counter: TokenCounter = token_counter(config)
        self.rows = Rows(tokenizers=self.counter.keys, limits=self.counter.limits)
        self.editor = Editor(self.rows, self.source.captions, why_not=self.source.why_not)
        self.watcher = Watcher(self.source, self.rows, self.editor)
        reader = self.source.reader()
        loaded = self.watcher.start()
        self.thumbnails = Thumbnails(reader)
        self.scans = Scans(self.rows, reader, self.counter, writing=self.editor.lock)
        self.runs = CaptionRuns(self.source, self.rows, self.editor, self.watcher)
        self.augmentations = Augmentations(self.source, self.counter)
        self._config, self._lock, self._buckets_known = config, threading.Lock(), False
        self._started = secrets.token_hex(8)  # row and sequence numbers are valid until a restart
        self._kind, self._root = loaded.kind, loaded.root

    def start(self) -> None:
        """Start the background scans."""
        self.scans.start()

    def stop(self) -> None:
        """Stop runs and scans."""
        self.runs.close()
        self.scans.stop()

    def summary(self) -> dict[str, Any]:
        """Return the dataset's properties for the page."""
        return {
            "name": self.source.name,
            "path": str(self._root),
            "kind": self._kind,
            "rows": len(self.rows),
            "writable": self.source.captions is not None,
            "why_not": self.source.why_not,
            "several_captions": self.source.captions is not None,
            "tokenizers": [
                {"key": key, "name": key.replace("_", " ").upper(), "limit": limit}
                for key, limit in zip(self.counter.keys, self.counter.limits, strict=True)
            ],
            "tokenizers_note": self.counter.note,
            "config": str(self.source.file) if self.source.file is not None else None,
            "captioning": self.source.captions is not None,
            **self.progress(),
            "seq": self.rows.seq,
        }

    def progress(self) -> dict[str, Any]:
        """Return the state that the page polls, besides changed rows."""
        writing = self.editor.writing
        return {
            "started": self._started,
            "writing": None if writing is None else writing.summary(),
            "undo": self.editor.history.summary(),
            "scans": self.scans.summary(),
            "run": self.runs.summary(),
        }

    def find(self, text: str, *, sort: str = "order") -> tuple[list[int], list[str]]:
        """Return the rows that match a filter.

        Args:
            text: The filter.
            sort: One of `SORTS`.

        Returns:
            The row numbers in order, and the needed scans that are incomplete.

        Raises:
            QueryError: The filter is not valid.
        """
        query = parse_query(text, tokenizers=self.counter.keys)
        fields = query.fields() | {_SORTED_BY.get(sort.removeprefix("-"), "")}
        if "duplicate" in fields:
            self.scans.want_duplicates()
        if "bucket" in fields:
            self._know_buckets()
        if not fields <= _NO_FILES:
            self.rows.read_all()
        pending = self.scans.pending(fields)
        with self.rows.lock:
            kept = np.flatnonzero(query.mask(self.rows))
            order = self._order(kept, sort)
        return order.tolist(), pending

    def _order(self, kept: np.ndarray[Any, np.dtype[np.intp]], sort: str) -> np.ndarray[Any, np.dtype[np.intp]]:
        name = sort.removeprefix("-")
        if name == "order":
            return kept
        if name == "id":
            ids = self.rows.ids
            numbers = sorted(kept.tolist(), key=lambda number: _natural(ids[number]), reverse=sort.startswith("-"))
            return np.array(numbers, dtype=np.intp)
        values = self.rows.number(_SORTED_BY[name])[kept]
        # Unknown values (NaN) are last in both orders; equal ones keep their order.
        return kept[np.argsort(-values if sort.startswith("-") else values, kind="stable")]

    def details(self, numbers: Sequence[int]) -> list[dict[str, Any]]:
        """Return rows for the page, with token counts."""
        self.rows.ensure(numbers)
        if lacking := self.rows.without_tokens(numbers):
            self.scans.count_tokens(lacking)
        return [self.rows.details(number) for number in numbers]

    def statistics(self, text: str) -> dict[str, Any]:
        """Return statistics of the rows that match a filter.

        Raises:
            QueryError: The filter is not valid.
        """
        self._know_buckets()
        numbers = self.find(text)[0]
        self.rows.ensure(numbers)
        numbers = [number for number in numbers if not self.rows.missing(number)]
        lists = statistics(self.rows, numbers, tokenizers=self.counter.keys, limits=self.counter.limits)
        pending = self.scans.pending(frozenset({"pixels", *(["tokens"] if self.counter.keys else [])}))
        return {"filter": text, "count": len(numbers), "lists": lists, "pending": pending}

    def _know_buckets(self) -> None:
        """Compute the buckets when they are needed first: that imports torch."""
        with self._lock:
            if not self._buckets_known:
                self.rows.set_buckets(bucket_namer(self._config))
                self._buckets_known = True

    def changes(self, since: int, *, shown: Sequence[int] = ()) -> dict[str, Any]:
        """Poll the disk, first for the rows that the page shows, and return the changes since a sequence number."""
        self.watcher.look(shown)
        self.scans.wake()
        return self.rows.changes(since) | self.progress()


def _natural(text: str) -> list[tuple[int, str]]:
    """Return a sort key with `a2` before `a10`."""
    pieces: list[tuple[int, str]] = []
    digits = ""
    for sign in text.casefold():
        if sign.isdecimal():
            digits += sign
            continue
        if digits:
            pieces.append((len(digits.lstrip("0")), digits))
            digits = ""
        pieces.append((-1, sign))
    return [*pieces, (len(digits), digits)] if digits else pieces
