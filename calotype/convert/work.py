"""The place where a result grows: beside its destination, hidden, and moved there when it is whole."""

from __future__ import annotations

import fcntl
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO

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
    """xxh3-128 over the xxh3-128 of each of its pictures."""
    names: dict[int, str] = field(default_factory=dict)
    """Names that differ from the plan's: their suffixes showed when the pictures were read."""
    failed: dict[int, str] = field(default_factory=dict)
    """Rows that are left out, since their pictures can't be had, and why."""


class Work:
    """`.NAME.converting/` beside the destination: `state.jsonl`, a line a finished part, and `result/`.

    So the destination is there whole or not at all. The state's first line tells whose it is; a last line that was
    cut off by a kill counts for nothing.
    """

    def __init__(self, folder: Path, plan: ConvertPlan, state: IO[str], parts: list[Part]) -> None:
        self.folder = folder
        self.result = folder / "result"
        self.parts = parts
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
            lines = state.read().split("\n")
            key, parts = _parsed(lines)
            if key is not None and key != plan.key:
                raise ConfigError(
                    f"destination: {folder} holds an unfinished conversion of another source, an older state of this "
                    "one, or with other options; repeat those to go on with it, or delete that folder"
                )
            if _is_there(destination) and not (key == plan.key and not (folder / "result").exists()):
                if key is None:
                    shutil.rmtree(folder)
                raise ConfigError(
                    f"destination: {destination} is there already, and nothing is ever written over; name another, or "
                    "delete it"
                )
            if lines[-1]:  # what a kill cut off
                state.truncate(state.tell() - len(lines[-1].encode("utf-8")))
            if key is None:
                state.truncate(0)
                state.write(json.dumps({"calotype_convert": 1, "key": plan.key}) + "\n")
                state.flush()
            yield cls(folder, plan, state, parts)

    @property
    def moved(self) -> bool:
        """Whether all was done before, but for the clearing up."""
        return bool(self.parts) and not self.result.exists() and _is_there(self._plan.destination)

    def add(self, part: Part) -> None:
        """Notes a finished part."""
        self._state.write(json.dumps(asdict(part)) + "\n")
        self._state.flush()
        self.parts.append(part)

    def forget_from(self, number: int) -> None:
        """Takes this part and those after it for not done."""
        kept = self.parts[:number]
        self._state.seek(0)
        self._state.truncate(0)
        self._state.write(json.dumps({"calotype_convert": 1, "key": self._plan.key}) + "\n")
        self.parts = []
        for part in kept:
            self.add(part)

    def publish(self) -> None:
        """Moves the result to its destination, and takes the rest away.

        Raises:
            ConfigError: The destination is a mount point.
        """
        destination = self._plan.destination
        if not self.moved:
            result = self.result / str(self._plan.form.table) if self._plan.single else self.result
            try:
                result.rename(destination)
            except OSError as error:
                raise ConfigError(
                    f"destination: the result can't be moved to {destination}: {error.strerror}. It is whole in "
                    f"{result}; is the destination a mount point? Then name a folder inside it"
                ) from error
        shutil.rmtree(self.folder)


def _is_there(destination: Path) -> bool:
    """An empty folder is as good as none."""
    if destination.is_dir():
        return any(destination.iterdir())
    return destination.exists() or destination.is_symlink()


def _parsed(lines: list[str]) -> tuple[str | None, list[Part]]:
    """Whose work it is, and its finished parts; None when nothing was begun."""
    key: str | None = None
    parts: list[Part] = []
    for line in lines[:-1]:
        try:
            value = json.loads(line)
        except ValueError:
            break
        if key is None:
            key = str(value.get("key"))
            continue
        for name in ("names", "failed"):
            value[name] = {int(index): text for index, text in value[name].items()}
        parts.append(Part(**value))
    return key, parts
