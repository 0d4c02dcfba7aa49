"""What the processes of a bench are told and what they answer: plain values, as JSON."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from calotype.errors import CalotypeError

__all__ = ["Encoded", "Measured", "Refused", "Task", "perform"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One process's work."""

    config: Mapping[str, Any]
    """With the strategy's options in it."""
    encode: bool
    """Encode the rows; else train on them."""
    online: bool
    """Whether the frozen models run in every step."""
    rows: Sequence[int]
    """Of the dataset."""
    steps: int
    """Batches that are timed once all is warm."""
    device: str
    output: str
    """A folder that the run may write to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoded:
    """What encoding the rows took."""

    first_seconds: float
    """Until the first image and its texts were there: mostly the models being loaded."""
    picture_seconds: float
    """For each further one."""
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What training on the rows took."""

    first_pace: float
    """Seconds an image in the first epoch, when nothing is kept yet."""
    pace: float
    """Seconds an image from then on."""
    data_wait: float
    """The share of it in which the loop waited for batches."""
    host_bytes: int | None
    """Peak of this process and the loader's together; None where the system does not say."""
    device_bytes: int | None
    """Peak of what torch allocated on the GPU; None without one."""
    kept_bytes: int
    """Of an image, in memory or on the device, where they are kept there."""


class Refused(CalotypeError):  # noqa: N818 - an answer, not a fault
    """A strategy does not run here; the message is the reason."""


def perform(task: Task, folder: Path) -> dict[str, Any]:
    """Does a task in a process of its own, so that its peak memory is its own, and gives the answer's fields.

    Raises:
        Refused: It does not run with this config on this machine.
        CalotypeError: The process died.
    """
    answer, asked = folder / "answer.json", folder / "task.json"
    answer.unlink(missing_ok=True)
    asked.write_text(json.dumps(asdict(task), default=str), encoding="utf-8")
    code = f"import sys; sys.path[:] = {sys.path!r}; from calotype.bench.worker import main; main(sys.argv[1:])"
    done = subprocess.run(
        [sys.executable, "-c", code, str(asked), str(answer)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        env=os.environ,
        check=False,
    )
    if not answer.is_file():
        last = " / ".join(done.stderr.strip().splitlines()[-8:])
        raise CalotypeError(f"bench: the process of a strategy died (exit status {done.returncode}): {last}")
    found: dict[str, Any] = json.loads(answer.read_bytes())
    if "refused" in found:
        raise Refused(found["refused"])
    return found
