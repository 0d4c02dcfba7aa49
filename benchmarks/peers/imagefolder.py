"""Hugging Face `datasets`: the imagefolder builder and `with_transform`, as diffusers' training examples use them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import datasets
import torch
from torch.utils.data import DataLoader
from torchvision import transforms

from peers import Epoch, Job


def collate(examples: list[dict[str, torch.Tensor]]) -> torch.Tensor:
    return torch.stack([example["pixel_values"] for example in examples])


def open_loader(job: Job) -> Epoch:
    datasets.disable_progress_bars()
    data = datasets.load_dataset(
        "imagefolder", data_dir=str(job.folder), split="train", cache_dir=str(job.scratch / "datasets")
    )
    pixels = transforms.Compose(
        [
            transforms.Resize(job.size, interpolation=transforms.InterpolationMode.LANCZOS),
            transforms.CenterCrop(job.size),
            transforms.ToTensor(),
            transforms.Normalize([0.5], [0.5]),
        ]
    )

    def transform(examples: dict[str, Any]) -> dict[str, Any]:
        return {"pixel_values": [pixels(image.convert("RGB")) for image in examples["image"]]}

    loader = DataLoader(
        data.with_transform(transform),
        batch_size=job.batch_size,
        shuffle=True,
        collate_fn=collate,
        num_workers=job.workers,
        persistent_workers=True,
    )

    def epoch() -> Iterator[torch.Tensor]:
        yield from loader

    return epoch
