"""Commands of calotype in a terminal of a given width or in pipes, without some seconds of imports for each of them."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

PROGRAM = Path(__file__).with_name("forked_commands.py")


@dataclass(frozen=True, slots=True)
class Reply:
    """What a command left."""

    status: int
    stdout: str
    """All of its output where it ran in a terminal."""
    stderr: str

    @property
    def text(self) -> str:
        return self.stdout + self.stderr


class Server:
    """A process that has imported `modules` and forks for each command.

    Args:
        python: The interpreter of the environment that the commands run in.
        modules: Names of the modules to import first.
        environment: Its environment variables.
    """

    def __init__(self, python: str | Path, *modules: str, environment: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            [python, PROGRAM, *modules], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def calotype(
        self, *arguments: object, folder: Path, columns: int | None = None, packages: Sequence[str] = ()
    ) -> Reply:
        """Run `calotype ARGUMENTS`.

        Args:
            arguments: Its arguments.
            folder: Where it runs.
            columns: Width of its terminal; without one it writes to pipes and reads nothing.
            packages: Folders that go before all others on sys.path.
        """
        job = {
            "arguments": [str(one) for one in arguments],
            "folder": str(folder),
            "columns": columns,
            "packages": list(packages),
        }
        assert self._process.stdin is not None and self._process.stdout is not None
        print(json.dumps(job), file=self._process.stdin, flush=True)
        return Reply(**json.loads(self._process.stdout.readline()))

    def close(self) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(timeout=60)
        self._process.stdout.close()
