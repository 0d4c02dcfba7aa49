"""The command `calotype`: one file for each verb, thin: parse, call, print.

`entry.py` is the process's beginning and end, `commands.py` the list of commands. Nothing heavy is imported before a
verb runs, so that `calotype --help` answers at once.
"""

from __future__ import annotations

from calotype.cli.entry import main, run_process
from calotype.core.lazy import exports

__all__ = ["app", "main", "run_process"]

__getattr__ = exports(__name__, {"app": ".commands"})
