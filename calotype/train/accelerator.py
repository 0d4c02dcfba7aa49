"""The accelerator of a run: its device and its precision."""

from __future__ import annotations

from typing import Any

import torch
from accelerate import Accelerator

__all__ = ["compute_dtype", "new_accelerator"]


def new_accelerator(*, device: str | None, mixed_precision: str | None, **more: Any) -> Accelerator:
    """Make an accelerator; under `torchrun` or `accelerate launch` it joins the other ranks.

    Args:
        device: `cpu` uses no GPU; otherwise accelerate chooses the device.
        mixed_precision: accelerate's `mixed_precision`; None is `bf16` on a GPU and `no` on the CPU.
        **more: Further arguments of `Accelerator`.
    """
    on_cpu = device == "cpu" or not torch.cuda.is_available()
    return Accelerator(
        cpu=on_cpu,
        mixed_precision=mixed_precision or ("no" if on_cpu else "bf16"),
        step_scheduler_with_optimizer=False,
        **more,
    )


def compute_dtype(accelerator: Accelerator) -> torch.dtype:
    """Return the dtype of a run's frozen weights."""
    return torch.bfloat16 if accelerator.mixed_precision == "bf16" else torch.float32
