"""`PixelCache`: decoded pixels in memory or on the device, shared by all threads of the process."""

from __future__ import annotations

import threading
from collections.abc import Hashable
from typing import Any

import torch

from calotype.errors import ConfigError

__all__ = ["PixelCache"]


class PixelCache:
    """Caches images until it is full, and never evicts.

    Each epoch reads every image once, in a new order. With that access pattern, a cache that evicts (such as LRU)
    evicts what the next epoch needs: with space for half the dataset, far fewer than half of the reads hit. Without
    eviction exactly half of them hit.

    Threads may share a cache. Pickling does not include the images: each process fills its own cache.

    Args:
        max_images: Maximum number of images; None for no limit.
        max_bytes: Maximum bytes of pixels; None for no limit.
        device: Device that stores the pixels; None leaves each tensor where it is. On an accelerator, each image is
            copied there only once.
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

    def __contains__(self, key: Hashable) -> bool:
        return key in self._images

    def __len__(self) -> int:
        return len(self._images)

    @property
    def nbytes(self) -> int:
        """Bytes of the cached pixels."""
        return self._bytes

    def get(self, key: Hashable) -> tuple[torch.Tensor, Any] | None:
        """Return (pixels, the `note` stored with them), or None. The pixels are shared: do not modify them."""
        found = self._images.get(key)
        with self._lock:
            if found is None:
                self.misses += 1
            else:
                self.hits += 1
        return found

    def put(self, key: Hashable, pixels: torch.Tensor, note: Any = None) -> torch.Tensor:
        """Cache pixels unless the cache is full.

        Args:
            key: Cache key.
            pixels: uint8, (3, H, W) of a sample or (H, W, 3) of a whole decoded image.
            note: Any value to store with them.

        Returns:
            The pixels, on the cache's device.
        """
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
