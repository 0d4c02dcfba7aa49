"""`Staging`: the hidden folder beside the destination in which a result is written before it is moved there."""

from __future__ import annotations

import fcntl
import json
import shutil
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

from calotype.convert.plan import ConvertPlan
from calotype.core.atomic import sync_path
from calotype.errors import ConfigError

__all__ = ["Part", "Staging"]

_STATE = "state.jsonl"


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A finished part: the rows [first, end)."""

    first: int
    end: int
    bytes: int
    digest: str
    """xxh3-128 over the xxh3-128 of each of its images."""
    names: dict[int, str] = field(default_factory=dict)
    """Row → name, where the plan's name lacked the suffix."""
    failed: dict[int, str] = field(default_factory=dict)
    """Row → reason, for skipped images."""


class Staging:
    """`.NAME.converting/` beside the destination: `result/`, and `state.jsonl` with a line for each finished part.

    So the destination is complete or absent. The state's first line has the plan's key, its last one marks completion;
    a line that a kill cut off is ignored.
    """

    def __init__(self, folder: Path, plan: ConvertPlan, state: IO[str], state_read: _State) -> None:
        self.folder = folder
        self.result = folder / "result"
        self.parts = state_read.parts
        self.moved = state_read.done and not _outcome(folder, plan).exists() and _exists(plan.destination)
        """The result was moved by an earlier run, and only this folder remains to delete."""
        self._plan = plan
        self._state = state

    @classmethod
    @contextmanager
    def open(cls, plan: ConvertPlan) -> Iterator[Staging]:
        """Start or resume, with an exclusive lock on the folder.

        Raises:
            ConfigError: The destination exists; or another conversion to it was started, or is running.
        """
        destination = plan.destination
        folder = destination.parent / f".{destination.name}.converting"
        if _exists(destination) and not folder.exists():
            raise _exists_error(destination)
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
                found = _State.parse(state.read())
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
                raise ConfigError(
                    f"destination: {folder / _STATE}: the state of an unfinished conversion can't be read ({error}); "
                    "delete that folder to start again"
                ) from None
            if found.key not in (None, plan.key):
                raise ConfigError(
                    f"destination: {folder} has an unfinished conversion of another source, an older version of this "
                    "one, or with other options; repeat those to resume it, or delete that folder"
                )
            staging = cls(folder, plan, state, found)
            if _exists(destination) and not staging.moved:
                raise _exists_error(destination)
            if found.key is None:
                shutil.rmtree(staging.result, ignore_errors=True)
            staging.drop_from(len(staging.parts))  # rewrites the state without a line that was cut off
            yield staging

    def add(self, part: Part) -> None:
        """Record a finished part."""
        self._note(asdict(part))
        self.parts.append(part)

    def drop_from(self, number: int) -> None:
        """Remove this part and later ones from the state."""
        kept = self.parts[:number]
        self._state.truncate(0)
        self._note({"calotype_convert": 1, "key": self._plan.key})
        self.parts = []
        for part in kept:
            self.add(part)

    def publish(self) -> None:
        """Move the result to its destination, and delete the folder.

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
                    f"complete in {outcome}; if the destination is a mount point, name a folder inside it"
                ) from error
        shutil.rmtree(self.folder)

    def _note(self, line: Mapping[str, Any]) -> None:
        self._state.write(json.dumps(line) + "\n")
        self._state.flush()


@dataclass(frozen=True, slots=True, kw_only=True)
class _State:
    """The content of `state.jsonl`."""

    key: str | None
    parts: list[Part]
    done: bool

    @classmethod
    def parse(cls, text: str) -> _State:
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
    """Return the file or folder that becomes the destination."""
    result = folder / "result"
    if not plan.single:
        return result
    parts = plan.form.files(plan.target, 0, ())
    return result / next(iter(parts), str(plan.form.table))


def _exists_error(destination: Path) -> ConfigError:
    return ConfigError(f"destination: {destination} exists, and is never overwritten; name another, or delete it")


def _flush(outcome: Path) -> None:
    """Flush to disk, so that a power cut leaves no incomplete result under its final name."""
    paths = [outcome, *outcome.rglob("*")] if outcome.is_dir() else [outcome]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(sync_path, [path for path in paths if not path.is_symlink()]))


def _exists(destination: Path) -> bool:
    """Whether there is a file or a folder that is not empty."""
    if destination.is_dir():
        return any(destination.iterdir())
    return destination.exists() or destination.is_symlink()
