"""Captions images with a vision-language model. `run(config)` implements `calotype caption`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from calotype.core.lazy import exports

if TYPE_CHECKING:
    from calotype.captioning.command import run

__all__ = ["run"]
__getattr__ = exports(__name__, {"run": ".command"}, former={"caption_config": "run"})
