"""The RFC's sketch, completed as written there: PIL and torchvision's transforms under torch's DataLoader."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from peers import Epoch, Job


class ImgTextDataset(Dataset[dict[str, torch.Tensor]]):
    def __init__(self, data: list[Path], img_transform: Any) -> None:
        self._data = data
        self._img_transform = img_transform

    def __len__(self) -> int:
        return len(self._data)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        image = self._img_transform(Image.open(self._data[index]))
        return {"img": (image / 127.5) - 1.0}


def open_loader(job: Job) -> Epoch:
    transform = v2.Compose(
        [v2.Resize(job.size, interpolation=v2.InterpolationMode.LANCZOS), v2.CenterCrop(job.size), v2.PILToTensor()]
    )
    loader = DataLoader(
        ImgTextDataset(job.files, transform),
        batch_size=job.batch_size,
        shuffle=True,
        num_workers=job.workers,
        persistent_workers=True,
    )

    def epoch() -> Iterator[torch.Tensor]:
        for batch in loader:
            yield batch["img"]

    return epoch
