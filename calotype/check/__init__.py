"""Checks a dataset before training. `run(config)` implements `calotype check`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from calotype.core.lazy import exports

if TYPE_CHECKING:
    from calotype.check.command import run

__all__ = ["run"]
__getattr__ = exports(__name__, {"run": ".command"}, former={"check_config": "run"})
