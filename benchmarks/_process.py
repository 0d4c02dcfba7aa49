"""A contestant in a separate process: reads requests as lines of standard input, answers each with a line of JSON."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import PIL
import torch
from peers import Job


class ContestantError(RuntimeError):
    """A contestant's process ended instead of answering; the message is what it said last."""


class Process:
    """The near end. Once started it waits until it is its turn.

    Args:
        script: Whose main calls `serve`.
        arguments: Of the script.
        log: File for what the process says on standard error.
    """

    def __init__(self, script: Path, *arguments: str, log: Path) -> None:
        self._log = log
        # Compiled modules are kept, as on any machine: without them each start would take seconds more.
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
        with log.open("w") as stderr:
            self._process = subprocess.Popen(
                [sys.executable, str(script), *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                env={**environment, "HF_HUB_OFFLINE": "1"},
            )
        self.pid = self._process.pid

    def answer(self) -> dict[str, Any]:
        """Waits for the next answer.

        Raises:
            ContestantError: The process is gone.
        """
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            said = self._log.read_text().strip().splitlines() or ["ended without a word"]
            raise ContestantError(said[-1])
        answer: dict[str, Any] = json.loads(line)
        return answer

    def ask(self, command: str) -> dict[str, Any]:
        """Gives a command and waits for its answer."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(command + "\n")
            self._process.stdin.flush()
        return self.answer()

    def close(self) -> None:
        """Ends it: its standard input closes."""
        with contextlib.suppress(BrokenPipeError):
            self._process.communicate(timeout=30)


def serve(open_contestant: Callable[[], Callable[..., dict[str, Any]]]) -> None:
    """The far end: opens the contestant, says so, then answers each line by calling it with the line's words."""
    # Answers leave through a copy of standard output, so that what a library prints can't be taken for one.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    contestant = open_contestant()
    print(json.dumps({}), file=answers)
    for line in sys.stdin:
        print(json.dumps(contestant(*line.split())), file=answers)


def job_as_text(job: Job) -> str:
    return json.dumps({name: getattr(job, name) for name in Job.__slots__}, default=str)


def job_from_text(text: str) -> Job:
    fields: dict[str, Any] = json.loads(text)
    return Job(**fields | {name: Path(fields[name]) for name in ("folder", "shards", "scratch")})


def installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ImportError:
        return False


def machine() -> str:
    """In words: cores, processor, versions."""
    name = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), name)
    versions = f"Python {platform.python_version()}, torch {torch.__version__}, Pillow {PIL.__version__}"
    return f"{len(os.sched_getaffinity(0))} cores of {name}, {versions}"


def say(text: str) -> None:
    """To standard error: what is under way."""
    print(text, file=sys.stderr, flush=True)
