"""The place where a result grows: beside its destination, hidden, and moved there when it is whole."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

from calotype.convert.plan import ConvertPlan
from calotype.errors import ConfigError

__all__ = ["Part", "Work"]

_STATE = "state.jsonl"


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A finished part: the rows `[first, end)`."""

    first: int
    end: int
    bytes: int
    digest: str
    """xxh3-128 over the xxh3-128 of each of its images."""
    names: dict[int, str] = field(default_factory=dict)
    """Names that differ from the plan's: their suffixes showed when the images were read."""
    failed: dict[int, str] = field(default_factory=dict)
    """Rows that are left out, since their images can't be had, and why."""


class Work:
    """`.NAME.converting/` beside the destination: `state.jsonl`, a line a finished part, and `result/`.

    So the destination is there whole or not at all. The state's first line tells whose it is, its last one that all is
    done; a line that was cut off by a kill counts for nothing.
    """

    def __init__(self, folder: Path, plan: ConvertPlan, state: IO[str], begun: _Begun) -> None:
        self.folder = folder
        self.result = folder / "result"
        self.parts = begun.parts
        self.moved = begun.done and not _outcome(folder, plan).exists() and _is_there(plan.destination)
        """All was done before, but for the clearing up."""
        self._plan = plan
        self._state = state

    @classmethod
    @contextmanager
    def open(cls, plan: ConvertPlan) -> Iterator[Work]:
        """The work on this plan's destination, begun or gone on with; nobody else can have it meanwhile.

        Raises:
            ConfigError: The destination is there; or another conversion to it was begun, or is running.
        """
        destination = plan.destination
        folder = destination.parent / f".{destination.name}.converting"
        if _is_there(destination) and not folder.exists():
            raise _there(destination)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            state = (folder / _STATE).open("a+", encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"destination: {destination} can't be written: {error.strerror}") from error
        with state:
            try:
                fcntl.flock(state, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ConfigError(f"destination: another process is converting to {destination} right now") from None
            state.seek(0)
            try:
                begun = _Begun.parse(state.read())
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
                raise ConfigError(
                    f"destination: {folder / _STATE}: its notes of an unfinished conversion can't be read ({error}); "
                    "delete that folder to begin anew"
                ) from None
            if begun.key not in (None, plan.key):
                raise ConfigError(
                    f"destination: {folder} holds an unfinished conversion of another source, an older state of this "
                    "one, or with other options; repeat those to go on with it, or delete that folder"
                )
            work = cls(folder, plan, state, begun)
            if _is_there(destination) and not work.moved:
                raise _there(destination)
            if begun.key is None:
                shutil.rmtree(work.result, ignore_errors=True)
            work.forget_from(len(work.parts))  # writes the state anew, without a line that was cut off
            yield work

    def add(self, part: Part) -> None:
        """Notes a finished part."""
        self._note(asdict(part))
        self.parts.append(part)

    def forget_from(self, number: int) -> None:
        """Takes this part and those after it for not done."""
        kept = self.parts[:number]
        self._state.truncate(0)
        self._note({"calotype_convert": 1, "key": self._plan.key})
        self.parts = []
        for part in kept:
            self.add(part)

    def publish(self) -> None:
        """Moves the result to its destination, and takes the rest away.

        Raises:
            ConfigError: The destination is a mount point.
        """
        if not self.moved:
            outcome = _outcome(self.folder, self._plan)
            _flush(outcome)
            self._note({"done": True})
            try:
                outcome.rename(self._plan.destination)
            except OSError as error:
                raise ConfigError(
                    f"destination: the result can't be moved to {self._plan.destination}: {error.strerror}. It is "
                    f"whole in {outcome}; is the destination a mount point? Then name a folder inside it"
                ) from error
        shutil.rmtree(self.folder)

    def _note(self, line: Mapping[str, Any]) -> None:
        self._state.write(json.dumps(line) + "\n")
        self._state.flush()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Begun:
    """What a state says."""

    key: str | None
    parts: list[Part]
    done: bool

    @classmethod
    def parse(cls, text: str) -> _Begun:
        key: str | None = None
        parts: list[Part] = []
        done = False
        for line in text.split("\n")[:-1]:
            value = json.loads(line)
            if key is None:
                key = str(value["key"])
            elif "done" in value:
                done = True
            else:
                for name in ("names", "failed"):
                    value[name] = {int(index): said for index, said in value[name].items()}
                parts.append(Part(**value))
        return cls(key=key, parts=parts, done=done)


def _outcome(folder: Path, plan: ConvertPlan) -> Path:
    """What becomes the destination."""
    result = folder / "result"
    if not plan.single:
        return result
    parts = plan.form.files(plan.target, 0, ())
    return result / next(iter(parts), str(plan.form.table))


def _there(destination: Path) -> ConfigError:
    return ConfigError(
        f"destination: {destination} is there already, and nothing is ever written over; name another, or delete it"
    )


def _flush(outcome: Path) -> None:
    """To the disk, so that a power cut leaves no result that only seems whole."""
    places = [outcome, *outcome.rglob("*")] if outcome.is_dir() else [outcome]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(_fsync, [place for place in places if not place.is_symlink()]))


def _fsync(place: Path) -> None:
    descriptor = os.open(place, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _is_there(destination: Path) -> bool:
    """An empty folder is as good as none."""
    if destination.is_dir():
        return any(destination.iterdir())
    return destination.exists() or destination.is_symlink()
