"""`Server`: runs each task of a bench in a process of its own, forked from one that has imported everything once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

__all__ = ["Server"]

_FORKS = sys.platform == "linux"
"""Whether a process that has imported torch can be forked safely."""


class Server:
    """The process from which tasks are forked: it starts with the first one. Elsewhere each task starts its own."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def run(self, asked: Path, answer: Path, errors: Path) -> int:
        """Run a task to its end.

        Args:
            asked: The file of the task.
            answer: The file for its result.
            errors: The file for what it prints.

        Returns:
            The exit code of its process.
        """
        arguments = [str(asked), str(answer), str(errors)]
        if not _FORKS:
            return subprocess.run(_command("run_task", *arguments), stdin=subprocess.DEVNULL, check=False).returncode
        if self._process is None or self._process.poll() is not None:
            self._process = subprocess.Popen(
                _command("serve"),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                env=os.environ,
            )
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(arguments) + "\n")
            self._process.stdin.flush()
            return int(self._process.stdout.readline())
        except (BrokenPipeError, ValueError):  # it ended itself
            return self._process.wait()

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.communicate()  # it ends with its standard input
            self._process = None


def _command(function: str, *arguments: str) -> list[str]:
    code = f"import sys; sys.path[:] = {sys.path!r}; from calotype.bench.worker import {function}; "
    return [sys.executable, "-c", f"{code}{function}(*sys.argv[1:])", *arguments]
