"""`Rows`: the state of every row in memory, and when it changed."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from typing import Any, Final, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from calotype.core.file_state import FileState
from calotype.editing import CaptionState
from calotype.studio.thumbnails import image_version, stamp
from calotype.types import ImageRef

__all__ = ["DiskEvent", "RowState", "Rows"]

_MAX_LISTED: Final = 2000
"""More changed rows than this are reported as `all`."""
_MAX_EVENTS: Final = 200
_UNREAD: Final = CaptionState(captions=(), rejected=False, version="")
"""The state of a row whose captions have not been read."""
_READ_AT_ONCE: Final = 256
"""Rows whose files are read at a time, while everything is read."""

DiskEvent = Literal["captions", "image", "gone", "new"]


class RowState(NamedTuple):
    """The part of a row that a person can edit."""

    captions: tuple[str, ...]
    rejected: bool

    @classmethod
    def of(cls, state: CaptionState) -> RowState:
        """Return this part of a state on disk."""
        return cls(captions=state.captions, rejected=state.rejected)


class Rows:
    """The rows. A row keeps its number while the server runs; new rows are appended.

    The files of a row, its image and the captions beside it, are read when they are needed first, so that a large
    folder is shown at once: `details` and `state` read those of one row, `ensure` those of several.

    Implements `Columns` for filters. Every change increments a sequence number, so that a page can poll for
    changes since its last request. Thread-safe.

    Args:
        tokenizers: Keys of the token counts, in order.
        limits: Maximum length of each.
    """

    def __init__(self, *, tokenizers: Sequence[str], limits: Sequence[int] = ()) -> None:
        self.lock = threading.RLock()
        self.seq = 0
        """Sequence number of the last change."""
        self.images_seq = 0
        """Sequence number of the last change of an image."""
        self.reader: Callable[[Sequence[int]], None] = lambda numbers: None
        """Reads the files of rows, and calls `set_read`."""
        self._reading = threading.Lock()
        self._unread: dict[int, None] = {}
        self._tokenizers, self._limits = tuple(tokenizers), tuple(limits)
        self._bucket_of: Callable[[npt.NDArray[np.float64]], list[str]] | None = None
        self._numbers: dict[str, int] = {}
        self.ids: list[str] = []
        self.refs: list[ImageRef] = []
        self._states: list[CaptionState] = []
        self._folded: list[str | None] = []
        self._missing: list[bool] = []
        self._stamps: list[FileState | None] = []
        self._sizes: list[tuple[int, int] | None] = []
        self._problems: list[str | None] = []
        self._tokens: list[tuple[tuple[int, ...], ...] | None] = []
        self._duplicates: dict[int, tuple[int, ...]] | None = None
        self._changed: list[int] = []
        self._events: deque[tuple[int, int, DiskEvent]] = deque(maxlen=_MAX_EVENTS)
        self._notices: deque[tuple[int, str]] = deque(maxlen=_MAX_EVENTS)

    def __len__(self) -> int:
        return len(self.ids)

    # Changes

    def add(
        self,
        ids: Sequence[str],
        refs: Sequence[ImageRef],
        states: Sequence[CaptionState] | None,
    ) -> list[int]:
        """Append rows, and return their numbers. `states`: their captions; None: not read yet."""
        with self.lock:
            first, count = len(self), len(ids)
            added = list(range(first, first + count))
            self._numbers.update(zip(ids, added, strict=True))
            self.ids += ids
            self.refs += refs
            self._states += [_UNREAD] * count if states is None else states
            self._folded += [None] * count
            self._missing += [False] * count
            self._stamps += [None] * count
            self._sizes += [None] * count
            self._problems += [None] * count
            self._tokens += [None] * count
            self._changed += [0] * count
            self._unread.update(dict.fromkeys(added))
            self._touch(added)
            self._duplicates, self.images_seq = None, self.seq
            return added

    def ensure(self, numbers: Iterable[int]) -> None:
        """Read the files of those of these rows that have not been read."""
        if unread := [number for number in numbers if number in self._unread]:
            self.reader(unread)

    def read_some(self) -> int:
        """Read the files of some rows that have not been read; return how many rows are left."""
        with self._reading:
            with self.lock:
                numbers = list(islice(self._unread, _READ_AT_ONCE))
            self.ensure(numbers)
            return len(self._unread)

    def read_all(self) -> None:
        """Read the files of all rows that have not been read."""
        while self.read_some():
            pass

    @property
    def unread(self) -> int:
        """Number of rows whose files have not been read."""
        return len(self._unread)

    def captions_unread(self, number: int) -> bool:
        """Whether the captions of a row have not been read."""
        return self._states[number] is _UNREAD

    def set_read(self, stamps: Mapping[int, FileState | None], states: Mapping[int, CaptionState]) -> None:
        """Set what was read first: number → the state of its image's file, and its captions where they were unread."""
        with self.lock:
            for number, found in stamps.items():
                if self._unread.pop(number, 0) is None:
                    self._stamps[number] = found
                    self._missing[number] = self.refs[number].path is not None and found is None
            for number, state in states.items():
                if self._states[number] is _UNREAD:
                    self._states[number] = state
                    self._folded[number] = None

    def set_state(self, number: int, state: CaptionState) -> None:
        """Set the state of a row as read from disk."""
        with self.lock:
            if state.captions != self._states[number].captions:
                self._folded[number] = self._tokens[number] = None
            self._states[number] = state
            self._touch([number])

    def set_missing(self, number: int, missing: bool) -> None:
        """Set whether the image or its row was removed from disk."""
        with self.lock:
            if self._missing[number] != missing:
                self._missing[number] = missing
                self._touch([number])

    def set_stamp(self, number: int, found: FileState | None) -> None:
        """Set the file state of an image, and invalidate what was computed from its pixels."""
        with self.lock:
            self._stamps[number] = found
            self._sizes[number] = self._problems[number] = None
            self._touch([number])
            self._duplicates, self.images_seq = None, self.seq

    def set_ref(self, number: int, ref: ImageRef) -> None:
        """Set the image reference of a row."""
        found = stamp(ref)
        gone = ref.path is not None and found is None
        if ref == self.refs[number] and found == self._stamps[number] and gone == self._missing[number]:
            return
        with self.lock:
            self.refs[number] = ref
            self.set_stamp(number, found)
            self.set_missing(number, gone)

    def set_sizes(self, sizes: Mapping[int, tuple[int, int] | str]) -> None:
        """Set the (height, width) of images, or why they can't be read."""
        with self.lock:
            for number, found in sizes.items():
                if isinstance(found, str):
                    self._sizes[number], self._problems[number] = (0, 0), found
                else:
                    self._sizes[number], self._problems[number] = found, None
            self._touch(sizes)

    def set_tokens(self, counted: Mapping[int, tuple[tuple[str, ...], tuple[tuple[int, ...], ...]]]) -> None:
        """Set token counts: number → (counted captions, counts of each), unless the captions changed since."""
        with self.lock:
            for number, (captions, tokens) in counted.items():
                if self._states[number].captions == captions:
                    self._tokens[number] = tokens
            self._touch(counted)

    def set_duplicates(self, duplicates: Mapping[int, tuple[int, ...]], *, images_seq: int) -> None:
        """Set the (near-)duplicates of each image, unless images changed since `images_seq`."""
        with self.lock:
            if self.images_seq != images_seq:
                return
            self._duplicates = dict(duplicates)
            self._touch(range(len(self)))

    def set_buckets(self, bucket_of: Callable[[npt.NDArray[np.float64]], list[str]] | None) -> None:
        """Set how (height, width) of images become names of buckets such as `768x512`; None: there are none."""
        with self.lock:
            self._bucket_of = bucket_of

    def report(self, number: int, what: DiskEvent) -> None:
        """Record that another program has changed a row on disk."""
        with self.lock:
            self._touch([number])
            self._events.append((self.seq, number, what))

    def notice(self, text: str) -> None:
        """Add a message for the page."""
        with self.lock:
            self.seq += 1
            self._notices.append((self.seq, text))

    def _touch(self, numbers: Iterable[int]) -> None:
        self.seq += 1
        for number in numbers:
            self._changed[number] = self.seq

    # Queries

    def number_of(self, id: str) -> int | None:
        """Return the number of a row."""
        return self._numbers.get(id)

    def state(self, number: int) -> CaptionState:
        """Return the captions of a row as last read from disk."""
        if self._states[number] is _UNREAD:
            self.ensure([number])
        return self._states[number]

    def stamp(self, number: int) -> FileState | None:
        """Return the file state of its image as last read; None if it has not been read."""
        return self._stamps[number]

    def missing(self, number: int) -> bool:
        """Return whether it was removed from disk, as far as that was noticed."""
        return self._missing[number]

    def problem(self, number: int) -> str | None:
        """Return why its image can't be read; None if it can, or has not been read."""
        return self._problems[number]

    def without_size(self) -> list[int]:
        """Return the rows without a known image size."""
        with self.lock:
            return [n for n, size in enumerate(self._sizes) if size is None and not self._missing[n]]

    def without_tokens(self, numbers: Iterable[int] | None = None) -> list[int]:
        """Return the rows without token counts."""
        with self.lock:
            return [n for n in (range(len(self)) if numbers is None else numbers) if self._tokens[n] is None]

    @property
    def duplicates_known(self) -> bool:
        """Whether duplicates are known for the current images."""
        return self._duplicates is not None

    def buckets_of(self, numbers: Sequence[int]) -> list[str]:
        """Return the bucket of each row; empty where it or the size is unknown."""
        with self.lock:
            known = [(at, size) for at, n in enumerate(numbers) if (size := self._sizes[n]) is not None and size[0]]
            found = [""] * len(numbers)
            if self._bucket_of is not None and known:
                names = self._bucket_of(np.array([size for _, size in known], np.float64))
                for (at, _), name in zip(known, names, strict=True):
                    found[at] = name
            return found

    def details(self, number: int) -> dict[str, Any]:
        """Return one row for the page."""
        self.ensure([number])
        with self.lock:
            state, size, tokens = self._states[number], self._sizes[number], self._tokens[number]
            version = image_version(self.refs[number], self._stamps[number])
            height, width = size if size is not None and size != (0, 0) else (None, None)
            return {
                "n": number,
                "id": self.ids[number],
                "captions": list(state.captions),
                "version": state.version,
                "rejected": state.rejected,
                "missing": self._missing[number],
                "width": width,
                "height": height,
                "problem": self._problems[number] or state.problem,
                "tokens": None if tokens is None else [list(counts) for counts in tokens],
                "duplicates": None if self._duplicates is None else list(self._duplicates.get(number, ())),
                "thumb": f"/thumb/{number}?v={version}",
                "image": f"/image/{number}?v={version}",
            }

    def changes(self, since: int) -> dict[str, Any]:
        """Return the changes after sequence number `since`."""
        with self.lock:
            changed = [n for n, seq in enumerate(self._changed) if seq > since]
            return {
                "seq": self.seq,
                "rows": changed if len(changed) <= _MAX_LISTED else "all",
                "total": len(self),
                "disk": [{"n": n, "what": what} for seq, n, what in self._events if seq > since],
                "notices": [{"seq": seq, "text": text} for seq, text in self._notices if seq > since],
            }

    # `Columns`

    def text(self, name: str) -> Sequence[str]:
        """See `Columns`."""
        with self.lock:
            if name == "id":
                return [id.casefold() for id in self.ids]
            if name == "bucket":
                return self.buckets_of(range(len(self)))
            for number, folded in enumerate(self._folded):
                if folded is None:
                    self._folded[number] = "\0".join(self._states[number].captions).casefold()
            return [folded for folded in self._folded if folded is not None]

    def number(self, name: str) -> npt.NDArray[np.float64]:
        """See `Columns`."""
        with self.lock:
            return np.fromiter(self._numbers_of(name), np.float64, count=len(self))

    def _numbers_of(self, name: str) -> Iterable[float]:
        if name == "captions":
            return (float(len(state.captions)) for state in self._states)
        if name == "words":
            return (float(max((len(text.split()) for text in state.captions), default=0)) for state in self._states)
        field, _, key = name.partition(".")
        if field == "tokens":
            indices = [index for index, one in enumerate(self._tokenizers) if key in ("", one)]
            return (_longest(tokens, indices) for tokens in self._tokens)
        return (_measure(name, *size) if size is not None and size[0] else np.nan for size in self._sizes)

    def flag(self, name: str) -> npt.NDArray[np.bool_]:
        """See `Columns`."""
        with self.lock:
            if name == "duplicate":
                mask = np.zeros(len(self), bool)
                mask[list(self._duplicates or ())] = True
                return mask
            if name == "missing":
                return np.array(self._missing, bool)
            if name == "rejected":
                return np.fromiter((state.rejected for state in self._states), bool, count=len(self))
            if name == "long":
                mask = np.zeros(len(self), bool)
                for key, limit in zip(self._tokenizers, self._limits, strict=True):
                    mask |= self.number(f"tokens.{key}") > limit
                return mask
            unreadable = zip(self._problems, (state.problem for state in self._states), strict=True)
            return np.fromiter((any(problems) for problems in unreadable), bool, count=len(self))


def _measure(name: str, height: int, width: int) -> float:
    return float({"height": height, "width": width, "pixels": height * width, "aspect": width / height}[name])


def _longest(tokens: tuple[tuple[int, ...], ...] | None, indices: Sequence[int]) -> float:
    """Return the largest count of any caption by any of these tokenizers."""
    if tokens is None:
        return np.nan
    return float(max((counts[index] for counts in tokens for index in indices), default=0))
