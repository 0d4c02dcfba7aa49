"""Decoded pixels kept in memory (or on the device), one cache for the whole process."""

from __future__ import annotations

import threading
from collections.abc import Hashable
from typing import Any

import torch

from calotype.errors import ConfigError

__all__ = ["PixelCache"]


class PixelCache:
    """Keeps the first images it is given until it is full; those stay.

    Epochs visit every image once in a new order. Under that pattern a cache that evicts (least recently used, say)
    throws out what the next epoch asks for, and a cache of half the dataset hits far less than half the time; one
    that keeps what it has hits exactly half the time.

    Threads may share it. A pickled cache arrives empty: each process fills its own.

    Args:
        max_images: How many images to keep; None for any number.
        max_bytes: How many bytes of pixels to keep; None for any number.
        device: Where to keep them. On an accelerator the images are stored there and never travel again.
    """

    def __init__(
        self, *, max_images: int | None = None, max_bytes: int | None = None, device: str | torch.device | None = None
    ) -> None:
        for name, value in (("max_images", max_images), ("max_bytes", max_bytes)):
            if value is not None and value < 0:
                raise ConfigError(f"pixel cache: {name} is {value}, expected 0 or more")
        self.max_images = max_images
        self.max_bytes = max_bytes
        self.device = torch.device(device) if device is not None else None
        self.hits = 0
        self.misses = 0
        self._images: dict[Hashable, tuple[torch.Tensor, Any]] = {}
        self._bytes = 0
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._images)

    @property
    def nbytes(self) -> int:
        return self._bytes

    def get(self, key: Hashable) -> tuple[torch.Tensor, Any] | None:
        """The pixels and what was stored with them, or None. The pixels are shared: don't write to them."""
        found = self._images.get(key)
        with self._lock:
            if found is None:
                self.misses += 1
            else:
                self.hits += 1
        return found

    def put(self, key: Hashable, pixels: torch.Tensor, note: Any = None) -> torch.Tensor:
        """Keeps the pixels if there is room; returns them, on the cache's device."""
        if self.device is not None:
            pixels = pixels.to(self.device)
        with self._lock:
            full = self.max_images is not None and len(self._images) >= self.max_images
            full |= self.max_bytes is not None and self._bytes + pixels.nbytes > self.max_bytes
            if not full and key not in self._images:
                self._images[key] = (pixels, note)
                self._bytes += pixels.nbytes
        return pixels

    def __getstate__(self) -> dict[str, Any]:
        return {"max_images": self.max_images, "max_bytes": self.max_bytes, "device": self.device}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]
