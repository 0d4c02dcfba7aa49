"""Train a LoRA or a whole network on an encoded dataset. `calotype train` calls `run(config)`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from calotype.core.lazy import exports

if TYPE_CHECKING:
    from calotype.train.command import run

__all__ = ["run"]
__getattr__ = exports(__name__, {"run": ".command"}, former={"train_config": "run"})
