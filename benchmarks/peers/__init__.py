"""The contestants of `raw.py`: one file each, all with the same function.

`open_loader(job)` prepares a contestant's loader once, and returns a function that runs one epoch: an iterator of
batches, each a tensor (B, 3, size, size) of RGB pixels. They come as float32 in [-1, 1], ready for the model, except
where a label says uint8. Every contestant shuffles (but the bare limit), and none tokenizes captions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

Epoch = Callable[[], Iterator[torch.Tensor]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What every contestant is asked to do."""

    folder: Path
    """Of JPEGs, nothing else."""
    shards: Path
    """The same JPEGs in tar shards."""
    size: int
    """Side of the square: the photo is scaled to cover it with a Lanczos filter, and cropped around its centre."""
    batch_size: int
    workers: int
    scratch: Path
    """An empty folder for what a contestant must write."""

    @property
    def files(self) -> list[Path]:
        return sorted(self.folder.glob("*.jpg"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Contestant:
    """A row of the table."""

    name: str
    label: str
    module: str
    kind: Literal["sketch", "peer", "limit", "ours"]
    needs: str | None = None
    """A package that it can't run without."""
    same_resampling: bool = True
    """False for one that has no antialiased Lanczos: it is shown, and left out of the comparison with the best peer."""
    options: tuple[tuple[str, Any], ...] = ()
    """Keyword arguments of its `open_loader`."""


CONTESTANTS = (
    Contestant(name="sketch", label="RFC's sketch: PIL, torchvision, DataLoader", module="sketch", kind="sketch"),
    Contestant(
        name="imagefolder",
        label="Hugging Face imagefolder, with_transform, DataLoader",
        module="imagefolder",
        kind="peer",
        needs="datasets",
    ),
    Contestant(
        name="webdataset", label="WebDataset, WebLoader", module="webdataset_shards", kind="peer", needs="webdataset"
    ),
    Contestant(
        name="dreambooth", label="diffusers' DreamBooth-style dataset, DataLoader", module="dreambooth", kind="peer"
    ),
    Contestant(
        name="torchvision",
        label="torchvision decode and resize, DataLoader",
        module="torchvision_io",
        kind="peer",
    ),
    Contestant(
        name="nodes",
        label="torchdata.nodes threads, torchvision decode and resize",
        module="torchdata_nodes",
        kind="peer",
        needs="torchdata",
    ),
    Contestant(
        name="spdl", label="SPDL threads (FFmpeg decode and scale)", module="spdl_threads", kind="peer", needs="spdl.io"
    ),
    Contestant(name="dali", label="NVIDIA DALI on the CPU", module="dali_cpu", kind="peer", needs="nvidia.dali"),
    Contestant(
        name="opencv",
        label="OpenCV with INTER_AREA (not Lanczos), DataLoader",
        module="opencv_area",
        kind="peer",
        needs="cv2",
        same_resampling=False,
    ),
    Contestant(
        name="limit",
        label="bare limit: decode and resize in two threads (uint8)",
        module="bare_limit",
        kind="limit",
    ),
    Contestant(name="calotype", label="calotype Loader", module="calotype_loader", kind="ours"),
    Contestant(
        name="calotype-in-process",
        label="calotype Loader, in_process=True",
        module="calotype_loader",
        kind="ours",
        options=(("in_process", True),),
    ),
    Contestant(
        name="calotype-uint8",
        label="calotype Loader, left as uint8 for the device",
        module="calotype_loader",
        kind="ours",
        options=(("uint8", True),),
    ),
    Contestant(
        name="calotype-fast",
        label="calotype Loader, decode: fast",
        module="calotype_loader",
        kind="ours",
        options=(("decode", "fast"),),
    ),
)
