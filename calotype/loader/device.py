"""`DeviceCopier`: copies batches to the device, one batch ahead, from pinned memory on a separate CUDA stream."""

from __future__ import annotations

import torch

from calotype.errors import ConfigError
from calotype.loader.source import Delivered, Source
from calotype.types import Batch

__all__ = ["DeviceCopier", "usable_device"]


def usable_device(device: str | torch.device | None) -> torch.device:
    """Return a device, the CPU for None.

    Raises:
        ConfigError: There is no such device, or torch can't use it here.
    """
    try:
        found = torch.device(device if device is not None else "cpu")
    except (RuntimeError, TypeError):
        raise ConfigError(
            f"device: found {device!r}, expected one that torch knows, such as cpu, cuda or cuda:1"
        ) from None
    try:
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError) as error:  # depends on how torch was built; NotImplementedError is one, too
        raise ConfigError(
            f"device: found {found}, but torch {_sees(found)}{str(error).splitlines()[0].split('. ')[0]}"
        ) from None
    return found


def _sees(device: torch.device) -> str:
    if device.type != "cuda":
        return "can't use it: "
    count = torch.cuda.device_count()
    if not count:
        return "sees no GPU: "
    return f"sees {count} GPU{'s' if count > 1 else ''}, cuda:0{f' to cuda:{count - 1}' if count > 1 else ''}: "


class DeviceCopier:
    """Copies batches from a source to a device.

    On a CUDA device, the copy of the next batch runs on a separate stream while the current batch is in use. On the CPU
    batches pass through unchanged.

    Args:
        device: The device that batches are copied to.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]
        self._staged: tuple[Delivered, torch.cuda.Event] | None = None

    def next(self, source: Source) -> Delivered:
        """Return the next batch, on the device."""
        if self._stream is None:
            delivered = source.next()
            if self._device.type != "cpu":
                batch = {k: v.to(self._device) if _is_tensor(v) else v for k, v in delivered.batch.items()}
                delivered = delivered._replace(batch=batch)
            return delivered
        # Make the current stream wait for the copy. `record_stream` stops the allocator from reusing memory too early.
        delivered, done = self._staged or self._copy(source)
        self._staged = None
        current = torch.cuda.current_stream(self._device)
        current.wait_event(done)
        for value in delivered.batch.values():
            if _is_tensor(value):
                value.record_stream(current)
        # Copy the next batch if it is ready; never wait for it here.
        if source.ready():
            self._staged = self._copy(source)
        return delivered

    def clear(self) -> None:
        """Drop the batch that was copied ahead."""
        self._staged = None

    def pin(self, memory: torch.Tensor) -> None:
        """Pin (page-lock) a slot's memory, so that copies from it can be asynchronous."""
        if self._stream is not None:
            torch.cuda.cudart().cudaHostRegister(memory.data_ptr(), memory.nbytes, 0)  # type: ignore[no-untyped-call]

    def _copy(self, source: Source) -> tuple[Delivered, torch.cuda.Event]:
        assert self._stream is not None
        on_host = source.next()
        batch: Batch = {}
        with torch.cuda.stream(self._stream):
            for key, value in on_host.batch.items():
                batch[key] = value.to(self._device, non_blocking=True) if _is_tensor(value) else value
            done = torch.cuda.Event()  # type: ignore[no-untyped-call]
            done.record(self._stream)
        done.synchronize()  # the slot is reused once its views are gone, so the copy has to be complete
        return on_host._replace(batch=batch), done


def _is_tensor(value: object) -> bool:
    return isinstance(value, torch.Tensor)
