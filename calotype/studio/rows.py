"""`Rows`: all that is known of every image, in memory, by number; and since when."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from calotype.core.file_state import FileState
from calotype.editing import CaptionState
from calotype.studio.pictures import picture_version, stamp
from calotype.types import ImageRef

__all__ = ["DiskEvent", "RowState", "Rows"]

_MOST_LISTED: Final = 2000
"""Changed rows that are named one by one."""
_MOST_EVENTS: Final = 200

DiskEvent = Literal["captions", "picture", "gone", "new"]


class RowState(NamedTuple):
    """What a person can change of a row."""

    captions: tuple[str, ...]
    rejected: bool


class Rows:
    """The rows. A row keeps its number as long as the server runs; those that appear later come at the end.

    It is the `Columns` that filters are asked of. Every change gets the next number of a sequence, so that a page can
    ask what has changed since it last asked. Safe from any thread.

    Args:
        tokenizers: What the counts of each caption are called, in their order.
    """

    def __init__(self, *, tokenizers: Sequence[str]) -> None:
        self.lock = threading.RLock()
        self.seq = 0
        """Of the last change."""
        self.pictures_seq = 0
        """Of the last change of images."""
        self._tokenizers = tuple(tokenizers)
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
        self._events: deque[tuple[int, int, DiskEvent]] = deque(maxlen=_MOST_EVENTS)
        self._notices: deque[tuple[int, str]] = deque(maxlen=_MOST_EVENTS)

    def __len__(self) -> int:
        return len(self.ids)

    # What changes

    def add(self, ids: Sequence[str], refs: Sequence[ImageRef], states: Sequence[CaptionState]) -> list[int]:
        """New rows at the end; gives their numbers."""
        stamps = [stamp(ref) for ref in refs]
        with self.lock:
            first = len(self)
            for id, ref, state, one in zip(ids, refs, states, stamps, strict=True):
                self._numbers[id] = len(self.ids)
                self.ids.append(id)
                self.refs.append(ref)
                self._states.append(state)
                self._folded.append(None)
                self._missing.append(ref.path is not None and one is None)
                self._stamps.append(one)
                self._sizes.append(None)
                self._problems.append(None)
                self._tokens.append(None)
                self._changed.append(0)
            added = list(range(first, len(self)))
            self._touch(added)
            self._duplicates, self.pictures_seq = None, self.seq
            return added

    def set_state(self, number: int, state: CaptionState) -> None:
        """What the disk holds of a row now."""
        with self.lock:
            if state.captions != self._states[number].captions:
                self._folded[number] = self._tokens[number] = None
            self._states[number] = state
            self._touch([number])

    def set_missing(self, number: int, missing: bool) -> None:
        """Whether the image, or what names it, is gone."""
        with self.lock:
            if self._missing[number] != missing:
                self._missing[number] = missing
                self._touch([number])

    def set_stamp(self, number: int, found: FileState | None) -> None:
        """The file of an image has changed: nothing that was known of its pixels holds."""
        with self.lock:
            self._stamps[number] = found
            self._sizes[number] = self._problems[number] = None
            self._touch([number])
            self._duplicates, self.pictures_seq = None, self.seq

    def set_ref(self, number: int, ref: ImageRef) -> None:
        """Where the image of a row is now."""
        found = stamp(ref)
        gone = ref.path is not None and found is None
        if ref == self.refs[number] and found == self._stamps[number] and gone == self._missing[number]:
            return
        with self.lock:
            self.refs[number] = ref
            self.set_stamp(number, found)
            self.set_missing(number, gone)

    def set_sizes(self, sizes: Mapping[int, tuple[int, int] | str]) -> None:
        """(height, width) of images, or why they can't be read."""
        with self.lock:
            for number, found in sizes.items():
                if isinstance(found, str):
                    self._sizes[number], self._problems[number] = (0, 0), found
                else:
                    self._sizes[number], self._problems[number] = found, None
            self._touch(sizes)

    def set_tokens(self, counted: Mapping[int, tuple[tuple[str, ...], tuple[tuple[int, ...], ...]]]) -> None:
        """Number → (captions that were counted, tokens of each by tokenizer), unless they have changed since."""
        with self.lock:
            for number, (captions, tokens) in counted.items():
                if self._states[number].captions == captions:
                    self._tokens[number] = tokens
            self._touch(counted)

    def set_duplicates(self, duplicates: Mapping[int, tuple[int, ...]], *, pictures_seq: int) -> None:
        """Which images are (nearly) equal to which others, unless images have changed since `pictures_seq`."""
        with self.lock:
            if self.pictures_seq != pictures_seq:
                return
            self._duplicates = dict(duplicates)
            self._touch(range(len(self)))

    def tell(self, number: int, what: DiskEvent) -> None:
        """Somebody else has changed something on the disk."""
        with self.lock:
            self._touch([number])
            self._events.append((self.seq, number, what))

    def notice(self, text: str) -> None:
        """A sentence for whoever looks at the page."""
        with self.lock:
            self.seq += 1
            self._notices.append((self.seq, text))

    def _touch(self, numbers: Iterable[int]) -> None:
        self.seq += 1
        for number in numbers:
            self._changed[number] = self.seq

    # What is asked

    def number_of(self, id: str) -> int | None:
        """The row of that id."""
        return self._numbers.get(id)

    def state(self, number: int) -> CaptionState:
        """What the disk held when it was last looked at."""
        return self._states[number]

    def stamp(self, number: int) -> FileState | None:
        """The same of its image."""
        return self._stamps[number]

    def missing(self, number: int) -> bool:
        """Whether it is gone."""
        return self._missing[number]

    def problem(self, number: int) -> str | None:
        """Why its image can't be read, as far as that is known."""
        return self._problems[number]

    def without_size(self) -> list[int]:
        """Rows whose size has not been read."""
        with self.lock:
            return [n for n, size in enumerate(self._sizes) if size is None and not self._missing[n]]

    def without_tokens(self, numbers: Iterable[int] | None = None) -> list[int]:
        """Rows whose captions have not been counted."""
        with self.lock:
            return [n for n in (range(len(self)) if numbers is None else numbers) if self._tokens[n] is None]

    @property
    def duplicates_known(self) -> bool:
        """Whether somebody has looked for them since images last changed."""
        return self._duplicates is not None

    def details(self, number: int) -> dict[str, Any]:
        """One row as the page gets it."""
        with self.lock:
            state, size, tokens = self._states[number], self._sizes[number], self._tokens[number]
            version = picture_version(self.refs[number], self._stamps[number])
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
                "picture": f"/picture/{number}?v={version}",
            }

    def changes(self, since: int) -> dict[str, Any]:
        """What a page that has seen everything up to `since` has not seen."""
        with self.lock:
            changed = [n for n, seq in enumerate(self._changed) if seq > since]
            return {
                "seq": self.seq,
                "rows": changed if len(changed) <= _MOST_LISTED else "all",
                "total": len(self),
                "disk": [{"n": n, "what": what} for seq, n, what in self._events if seq > since],
                "notices": [{"seq": seq, "text": text} for seq, text in self._notices if seq > since],
            }

    # `Columns`

    def text(self, name: str) -> Sequence[str]:
        """As `Columns` asks."""
        with self.lock:
            if name == "id":
                return [id.casefold() for id in self.ids]
            for number, folded in enumerate(self._folded):
                if folded is None:
                    self._folded[number] = "\0".join(self._states[number].captions).casefold()
            return [folded for folded in self._folded if folded is not None]

    def number(self, name: str) -> npt.NDArray[np.float64]:
        """As `Columns` asks."""
        with self.lock:
            return np.fromiter(self._numbers_of(name), np.float64, count=len(self))

    def _numbers_of(self, name: str) -> Iterable[float]:
        if name == "captions":
            return (float(len(state.captions)) for state in self._states)
        if name == "words":
            return (float(max((len(text.split()) for text in state.captions), default=0)) for state in self._states)
        field, _, key = name.partition(".")
        if field == "tokens":
            places = [place for place, one in enumerate(self._tokenizers) if key in ("", one)]
            return (_longest(tokens, places) for tokens in self._tokens)
        return (_measure(name, *size) if size is not None and size[0] else np.nan for size in self._sizes)

    def flag(self, name: str) -> npt.NDArray[np.bool_]:
        """As `Columns` asks."""
        with self.lock:
            if name == "duplicate":
                mask = np.zeros(len(self), bool)
                mask[list(self._duplicates or ())] = True
                return mask
            if name == "missing":
                return np.array(self._missing, bool)
            if name == "rejected":
                return np.fromiter((state.rejected for state in self._states), bool, count=len(self))
            unreadable = zip(self._problems, (state.problem for state in self._states), strict=True)
            return np.fromiter((any(problems) for problems in unreadable), bool, count=len(self))


def _measure(name: str, height: int, width: int) -> float:
    return float({"height": height, "width": width, "pixels": height * width, "aspect": width / height}[name])


def _longest(tokens: tuple[tuple[int, ...], ...] | None, places: Sequence[int]) -> float:
    """Of any caption by any of these tokenizers."""
    if tokens is None:
        return np.nan
    return float(max((counts[place] for counts in tokens for place in places), default=0))
