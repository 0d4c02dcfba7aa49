"""The tasks of the processes of a bench and their results: plain values, as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from calotype.bench.server import Server
from calotype.errors import CalotypeError

__all__ = ["SERVER", "Encoded", "Measured", "Refused", "Task", "perform"]

SERVER: Final = Server()
"""Of this process; closed after its tasks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """The task of one process."""

    config: Mapping[str, Any]
    """The config, with the strategy's options."""
    encode: bool
    """Whether to encode the rows; else train on them."""
    online: bool
    """Whether the frozen models run in every step."""
    rows: Sequence[int]
    """Indices of the dataset's rows."""
    steps: int
    """Number of timed batches."""
    device: str
    output: str
    """A folder for the run's files."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoded:
    """The cost of encoding the rows."""

    first_seconds: float
    """Time of the first image with its texts: mostly loading the models."""
    picture_seconds: float
    """Time of each further image."""
    bytes: int
    """Size of all records."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """The cost of training on the rows."""

    first_pace: float
    """Seconds for each image in the first epoch, with empty caches."""
    pace: float
    """Seconds for each image afterwards."""
    data_wait: float
    """Share of that time in which the loop waited for batches, 0 to 1."""
    host_bytes: int | None
    """Peak memory of this process and the loader's together; None where the system does not report it."""
    device_bytes: int | None
    """Peak memory that torch allocated on the GPU; None without one."""
    kept_bytes: int
    """Bytes of a cached image, in memory or on the device; 0 without a cache."""


class Refused(CalotypeError):  # noqa: N818 - a result, not a fault
    """A strategy does not run here; the message is the reason."""


def perform(task: Task, folder: Path) -> dict[str, Any]:
    """Run a task in its own process, which has its own peak memory; return the fields of its result.

    Args:
        task: The task.
        folder: Folder for the task and result files.

    Raises:
        Refused: The task does not run with this config on this machine.
        CalotypeError: The process exited without a result.
    """
    answer, asked, errors = folder / "answer.json", folder / "task.json", folder / "errors.txt"
    answer.unlink(missing_ok=True)
    asked.write_text(json.dumps(asdict(task), default=str), encoding="utf-8")
    code = SERVER.run(asked, answer, errors)
    if not answer.is_file():
        said = errors.read_text("utf-8", "replace") if errors.is_file() else ""
        last = " / ".join(said.strip().splitlines()[-8:])
        raise CalotypeError(f"bench: the process of a strategy exited with code {code}: {last}")
    found: dict[str, Any] = json.loads(answer.read_bytes())
    if "refused" in found:
        raise Refused(found["refused"])
    return found
