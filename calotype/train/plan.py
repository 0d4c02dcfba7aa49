"""What a run is going to do, once its data and its network are known: device, buckets, encoding, memory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from calotype.config.train import TrainConfig
from calotype.encodings.frozen import FrozenModels
from calotype.encodings.on_the_fly import OnTheFlyDataset
from calotype.loader import Loader
from calotype.terminal import size_text, visible

__all__ = ["Memory", "device_text", "expected_memory", "plan_lines"]

_BUCKETS: Final = 3
"""Buckets that are named, the fullest first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Expected bytes on the device. Activations come on top: they depend on the size of a batch."""

    frozen: int
    """Of weights that are not trained."""
    trained: int
    """Of trained weights, their gradients, AdamW's two averages and the moving average."""
    encoders: int
    """Of the frozen models, while something is encoded."""

    @property
    def total(self) -> int:
        """Bytes at the peak, without activations."""
        return self.frozen + self.trained + self.encoders


def expected_memory(network: Any, models: FrozenModels, options: TrainConfig, dtype: torch.dtype) -> Memory:
    """Return the memory that a run will take.

    Args:
        network: The network with its adapters, on the meta device.
        models: The frozen models.
        options: The `train` section.
        dtype: Dtype of weights that are not trained.
    """
    trained = sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)
    frozen = sum(parameter.numel() for parameter in network.parameters() if not parameter.requires_grad)
    copies = 4 if options.ema_decay is None else 5  # in float32
    return Memory(
        frozen=frozen * dtype.itemsize, trained=trained * 4 * copies, encoders=models.parameters * models.dtype.itemsize
    )


def plan_lines(loader: Loader, memory: Memory, device: torch.device) -> Iterator[str]:
    """Yield lines about a run.

    Args:
        loader: The loader of the training data.
        memory: The expected memory.
        device: The device of the network.
    """
    yield f"  device    {device_text(device)}"
    yield f"  batches   {len(loader):,} an epoch"
    if named := _buckets(loader):
        yield f"  buckets   {named} (width×height: images)"
    source = loader.dataset
    missing = source.encoding_time.missing if isinstance(source, OnTheFlyDataset) else 0
    if isinstance(source, OnTheFlyDataset) and missing:
        yield f"  encoding  {missing:,} images and texts while training, once: {size_text(source.missing_bytes)}"
        yield f"            are stored in {visible(source.store.path)}"
    else:
        yield "  encoding  nothing: all images and texts are encoded"
    parts = [f"network {size_text(memory.frozen)}"] if memory.frozen else []
    parts.append(f"training {size_text(memory.trained)}")
    parts += [f"encoders {size_text(memory.encoders)}"] if missing else []
    total = memory.total if missing else memory.frozen + memory.trained
    yield f"  memory    at least {size_text(total)}: {', '.join(parts)}"
    if device.type == "cuda" and total > (room := torch.cuda.get_device_properties(device).total_memory):
        advice = "; calotype encode first leaves the encoders out" if memory.total - memory.encoders <= room else ""
        yield f"warning: the GPU has {size_text(room)}, which is less{advice}"


def device_text(device: torch.device) -> str:
    """Return what a run trains on, and for a CPU why no GPU was found."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type != "cpu":
        return device.type
    if torch.version.cuda is None and getattr(torch.version, "hip", None) is None:
        return f"CPU; no GPU found: torch {torch.__version__} is built without CUDA"
    if (hidden := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None and not torch.cuda.is_available():
        return f"CPU; no GPU found: CUDA_VISIBLE_DEVICES is {hidden!r}"
    if not torch.cuda.is_available():
        loaded = Path("/proc/driver/nvidia/version").exists()
        return f"CPU; no GPU found: {'torch sees none' if loaded else 'no NVIDIA driver is loaded'}"
    return "CPU, as loader.device says"


def _buckets(loader: Loader) -> str:
    """Return the number of batches, and the fullest buckets."""
    assigned = loader.plan.buckets
    counts = np.bincount(assigned[assigned >= 0], minlength=len(loader.plan.sizes))
    used = [int(index) for index in np.argsort(-counts, kind="stable") if counts[index]]
    named = [
        f"{size[1]}×{size[0]}: {counts[index]:,}" for index in used[:_BUCKETS] if (size := loader.plan.sizes[index])
    ]
    if len(used) > _BUCKETS:
        named.append(f"and {len(used) - _BUCKETS} more")
    return "  ".join(named)
