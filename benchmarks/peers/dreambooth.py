"""A dataset built the way diffusers' DreamBooth examples build theirs: open, upright, RGB, torchvision, collate."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from PIL import Image, ImageOps
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from peers import Epoch, Job


class InstanceImages(Dataset[dict[str, torch.Tensor]]):
    """Opens and transforms an image each time it is asked for, as `train_dreambooth.py` does.

    (The Flux and SD3 scripts transform every image once, before training, and keep them all in memory as floats.)
    """

    def __init__(self, files: list[Path], size: int) -> None:
        self.files = files
        self.transforms = transforms.Compose(
            [
                transforms.Resize(size, interpolation=transforms.InterpolationMode.LANCZOS),
                transforms.CenterCrop(size),
                transforms.ToTensor(),
                transforms.Normalize([0.5], [0.5]),
            ]
        )

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        image = ImageOps.exif_transpose(Image.open(self.files[index]))
        if image.mode != "RGB":
            image = image.convert("RGB")
        return {"instance_images": self.transforms(image)}


def collate(examples: list[dict[str, torch.Tensor]]) -> torch.Tensor:
    pixel_values = torch.stack([example["instance_images"] for example in examples])
    return pixel_values.to(memory_format=torch.contiguous_format).float()


def open_loader(job: Job) -> Epoch:
    loader = DataLoader(
        InstanceImages(job.files, job.size),
        batch_size=job.batch_size,
        shuffle=True,
        collate_fn=collate,
        num_workers=job.workers,
        persistent_workers=True,
    )

    def epoch() -> Iterator[torch.Tensor]:
        yield from loader

    return epoch
