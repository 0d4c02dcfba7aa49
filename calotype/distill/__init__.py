"""Train a small captioner on the captions of a large one. `calotype distill` calls `run(config)`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from calotype.core.lazy import exports

if TYPE_CHECKING:
    from calotype.distill.command import run

__all__ = ["run"]
__getattr__ = exports(__name__, {"run": ".command"}, former={"distill_config": "run"})
