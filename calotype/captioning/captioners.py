"""`CAPTIONERS`: the table of known captioners; and `pick_captioner`, which returns the largest that fits a device."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch

from calotype.errors import CaptionError

__all__ = ["CAPTIONERS", "Captioner", "Picked", "default_device", "free_memory", "pick_captioner"]

_GIB: Final = 1 << 30

_WORKSPACE: Final = 1.15
"""Memory as a multiple of the weights: with activations and the KV cache."""
_FIXED: Final = int(1.5 * _GIB)
"""Memory independent of the weights: the device's libraries, the images of a batch."""

_MOST_ON_CPU: Final = 0.6e9
"""Maximum parameters of a model on a CPU; larger ones take minutes per image."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Captioner:
    """A model that captions well for its size."""

    hub: str
    """Its name on the Hugging Face hub."""
    parameters: float
    """Number of parameters, to three digits."""
    note: str
    """Its strengths, in a few words."""
    auto: bool = True
    """Whether `pick_captioner` may pick it: not gated models, which need a login, nor those with fixed tasks."""

    @property
    def weights(self) -> int:
        """Bytes of its weights in bfloat16."""
        return int(self.parameters * 2)

    def needs(self, device: torch.device) -> int:
        """Return the bytes of free memory that it needs on a device; the weights are float32 on a CPU."""
        weights = self.weights * (2 if device.type == "cpu" else 1)
        return int(weights * _WORKSPACE) + _FIXED


CAPTIONERS: Final = (
    Captioner(hub="florence-community/Florence-2-base", parameters=0.232e9, note="fixed tasks, quick", auto=False),
    Captioner(hub="HuggingFaceTB/SmolVLM-256M-Instruct", parameters=0.256e9, note="runs anywhere"),
    Captioner(hub="HuggingFaceTB/SmolVLM-500M-Instruct", parameters=0.507e9, note="runs anywhere"),
    Captioner(hub="florence-community/Florence-2-large", parameters=0.823e9, note="fixed tasks, quick", auto=False),
    Captioner(hub="Qwen/Qwen3-VL-2B-Instruct", parameters=2.13e9, note="follows presets"),
    Captioner(hub="Qwen/Qwen2.5-VL-3B-Instruct", parameters=3.75e9, note="follows presets"),
    Captioner(hub="google/gemma-3-4b-it", parameters=4.30e9, note="follows presets; gated", auto=False),
    Captioner(hub="Qwen/Qwen3-VL-4B-Instruct", parameters=4.44e9, note="follows presets"),
    Captioner(hub="Qwen/Qwen2.5-VL-7B-Instruct", parameters=8.29e9, note="follows presets, reads text"),
    Captioner(
        hub="fancyfeast/llama-joycaption-beta-one-hf-llava",
        parameters=8.48e9,
        note="trained to caption for text-to-image training",
        auto=False,
    ),
    Captioner(hub="Qwen/Qwen3-VL-8B-Instruct", parameters=8.77e9, note="follows presets, reads text"),
    Captioner(hub="meta-llama/Llama-3.2-11B-Vision-Instruct", parameters=10.7e9, note="gated", auto=False),
    Captioner(hub="google/gemma-3-12b-it", parameters=12.2e9, note="follows presets; gated", auto=False),
    Captioner(hub="google/gemma-3-27b-it", parameters=27.4e9, note="follows presets; gated", auto=False),
    Captioner(hub="Qwen/Qwen3-VL-32B-Instruct", parameters=33.4e9, note="among the best that one GPU of 80 GB runs"),
    Captioner(hub="meta-llama/Llama-3.2-90B-Vision-Instruct", parameters=88.6e9, note="gated", auto=False),
)
"""Sorted by size."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Picked:
    """The result of `pick_captioner`."""

    captioner: Captioner
    why: str
    """One readable sentence."""


def pick_captioner(device: str | torch.device | None = None, *, free: int | None = None) -> Picked:
    """Return the largest captioner that fits into memory; on a CPU, the largest that is fast enough.

    Args:
        device: None is the default device.
        free: Bytes of free memory; None reads it from the device.

    Raises:
        CaptionError: None of them fits.
    """
    device = torch.device(device if device is not None else default_device())
    free = free_memory(device) if free is None else free
    candidates = [row for row in CAPTIONERS if row.auto]
    fitting = [row for row in candidates if row.needs(device) <= free]
    if not fitting:
        least = min(row.needs(device) for row in candidates)
        raise CaptionError(
            f"model: auto: {device} has {free / _GIB:.1f} GiB of free memory, and the smallest captioner needs "
            f"{least / _GIB:.1f} GiB; free memory, or use a server (--backend http)"
        )
    slow = [row for row in fitting if device.type == "cpu" and row.parameters > _MOST_ON_CPU]
    picked = next(row for row in reversed(fitting) if row not in slow)
    why = (
        f"{picked.hub} ({picked.parameters / 1e9:.3g} billion parameters): it needs "
        f"{picked.needs(device) / _GIB:.1f} GiB, and {device} has {free / _GIB:.1f} GiB free"
    )
    larger = candidates[candidates.index(picked) + 1 :]
    if slow:
        why += "; larger ones would fit, but take minutes per image on a CPU"
    elif larger:
        why += f"; the next larger one, {larger[0].hub}, would need {larger[0].needs(device) / _GIB:.1f} GiB"
    return Picked(captioner=picked, why=f"{why}.")


def default_device() -> str:
    """Return `cuda` where available, else `mps`, else `cpu`."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def free_memory(device: torch.device) -> int:
    """Return the bytes that a model can allocate there now."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    if device.type == "mps":
        return int(torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory())
    return min(_available(), _cgroup_limit())


def _available() -> int:
    """Return the bytes of main memory that are available without swapping."""
    try:
        lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        return int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):  # not Linux: half of the memory
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


def _cgroup_limit() -> int:
    """Return the bytes that a container's limit leaves; 2^62 without a limit."""
    group = Path("/sys/fs/cgroup")
    try:
        limit, used = (int((group / f"memory.{name}").read_text()) for name in ("max", "current"))
        lines = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        return limit - used + int(lines["inactive_file"])  # the page cache can be evicted
    except (OSError, KeyError, ValueError):  # no such file, or "max"
        return 1 << 62
