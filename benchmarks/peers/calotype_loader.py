"""calotype's Loader over a folder: the same square crop, and as many threads as the others have workers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

import torch

from calotype import Loader, text_to_image_dataset
from peers import Epoch, Job


def pixels_as_they_are(sample: Mapping[str, Any]) -> dict[str, Any]:
    """A model transform that leaves uint8 pixels for the device to normalise."""
    return {"img": sample["image"]}


def open_loader(
    job: Job, *, decode: Literal["exact", "fast"] = "exact", uint8: bool = False, in_process: bool = False
) -> Epoch:
    dataset = text_to_image_dataset(
        pixels_as_they_are if uint8 else None,
        path=job.folder,
        img_transform={"resize": job.size, "center_crop": True},
        missing_captions="empty",
        decode=decode,
    )
    loader = Loader(dataset, job.batch_size, threads=job.workers, in_process=in_process)

    def epoch() -> Iterator[torch.Tensor]:
        for batch in loader:
            yield batch["img"]

    return epoch
