"""`points_from_torch`: names of options of torch's DataLoader get a pointer to what they are called here."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Final, ParamSpec

__all__ = ["points_from_torch"]

P = ParamSpec("P")

_INSTEAD: Final = {
    "num_workers": "the samples are prepared by threads: threads=… (the default fits the machine)",
    "persistent_workers": "leave it out: what prepares the samples lives until close()",
    "prefetch_factor": "prefetch=… is the number of batches made ahead",
    "pin_memory": "leave it out: with device=…, batches are copied from pinned memory",
    "drop_last": 'remainder="drop" leaves out what does not fill a batch',
    "sampler": "leave it out: the order follows from seed and shuffle; dataset.select(indices) takes a part",
    "batch_sampler": "leave it out: the order follows from batch_size, seed and shuffle",
    "collate_fn": "leave it out: samples are stacked by calotype.collate",
    "worker_init_fn": "leave it out: all randomness follows from seed, in any thread",
    "generator": "leave it out: the order follows from seed=…",
    "multiprocessing_context": "leave it out: the loader process is started as a new interpreter",
}
"""Option of torch's DataLoader or its samplers → what to do here."""


def points_from_torch(init: Callable[P, None]) -> Callable[P, None]:
    """Decorate a constructor: an unknown option that torch's DataLoader has is an error that names its counterpart."""

    @wraps(init)
    def checked(*args: P.args, **options: P.kwargs) -> None:
        for name, instead in _INSTEAD.items():
            if name in options:
                raise TypeError(f"{name}: an option of torch's DataLoader, not of {type(args[0]).__name__}; {instead}")
        init(*args, **options)

    return checked
