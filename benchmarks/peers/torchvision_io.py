"""torchvision without PIL: its JPEG decoder and v2 transforms on uint8 tensors, under torch's DataLoader."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from torch.utils.data import DataLoader, Dataset
from torchvision.io import ImageReadMode, decode_image
from torchvision.transforms import v2

from peers import Epoch, Job


def pixel_transform(size: int) -> v2.Transform:
    return v2.Compose(
        [
            v2.Resize(size, interpolation=v2.InterpolationMode.LANCZOS, antialias=True),
            v2.CenterCrop(size),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize([0.5], [0.5], inplace=True),
        ]
    )


class Decoded(Dataset[torch.Tensor]):
    def __init__(self, files: list[Path], size: int) -> None:
        self.files = [str(file) for file in files]
        self.transform = pixel_transform(size)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> torch.Tensor:
        image: torch.Tensor = self.transform(decode_image(self.files[index], mode=ImageReadMode.RGB))
        return image


def open_loader(job: Job) -> Epoch:
    loader = DataLoader(
        Decoded(job.files, job.size),
        batch_size=job.batch_size,
        shuffle=True,
        num_workers=job.workers,
        persistent_workers=True,
    )

    def epoch() -> Iterator[torch.Tensor]:
        yield from loader

    return epoch
