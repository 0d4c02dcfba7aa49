"""`LoaderConfig`: the options of `calotype.Loader`."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator

from calotype.config.derived import Derived
from calotype.config.expected import Expected
from calotype.config.section import Count, CountOrZero, Section

__all__ = ["LoaderConfig"]


def _named(device: Any) -> Any:
    """A `torch.device` by its name."""
    return str(device) if type(device).__name__ == "device" else device


Device = Annotated[str, BeforeValidator(_named), Expected("a device, such as cuda or cpu")]


class LoaderConfig(Section):
    """How batches are made: options of `calotype.Loader`."""

    name: ClassVar[str] = "loader"
    example: ClassVar[str] = "batch_size: 4"
    component: ClassVar[str | None] = "calotype.Loader"

    batch_size: Count = 1
    """Samples of a batch, on each rank."""
    seed: Annotated[int | None, Derived("the dataset's")] = None
    """Seed of the order and of everything that is sampled at random."""
    device: Annotated[Device | None, Derived("the CPU")] = None
    """Device that batches are on."""
    threads: Annotated[Count | None, Derived("the cores this process may use, at most 16")] = None
    """Threads that prepare samples."""
    prefetch: Count = 2
    """Batches made ahead."""
    in_process: bool = False
    """Prepare samples in threads of this process instead of a loader process; right for small datasets in memory."""
    shuffle: bool = True
    """`false` gives the rows in their order, bucket by bucket."""
    remainder: Literal["short", "repeat", "drop"] = "short"
    """The samples of a bucket that don't fill a step: a smaller batch (`short`), filled up with samples that come twice
    (`repeat`), or left out by name (`drop`)."""
    on_error: Literal["replace", "raise"] = "replace"
    """An image that can't be read: `replace` shows another of the same bucket and notes it in the ledger, `raise`
    raises its error."""
    on_upscale: Literal["warn", "skip", "error"] = "warn"
    """Images that have to be enlarged beyond `max_upscale` of the buckets."""
    device_cache: bool = False
    """Keep the whole dataset on the device from the first epoch on. For small sets; pixels need a fixed crop."""
    rank: Annotated[CountOrZero | None, Derived("that of torch.distributed, else 0")] = None
    """Rank of this process."""
    world_size: Annotated[Count | None, Derived("that of torch.distributed, else 1")] = None
    """Number of ranks."""
