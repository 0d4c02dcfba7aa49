"""Runs the frozen encoders over a dataset once and stores their outputs; `run(config)` is `calotype encode`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from calotype.core.lazy import exports

if TYPE_CHECKING:
    from calotype.encodings.command import run

__all__ = ["run"]
__getattr__ = exports(__name__, {"run": ".command"}, former={"encode_config": "run"})
