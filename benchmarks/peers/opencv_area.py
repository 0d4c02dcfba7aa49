"""OpenCV under torch's DataLoader. It has no antialiased Lanczos: its users downscale with INTER_AREA."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import torch
from torch.utils.data import DataLoader, Dataset

from peers import Epoch, Job


class AreaResized(Dataset[torch.Tensor]):
    def __init__(self, files: list[Path], size: int) -> None:
        self.files = files
        self.size = size

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> torch.Tensor:
        image = cv2.imread(str(self.files[index]), cv2.IMREAD_COLOR_RGB)
        height, width = image.shape[:2]
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        method = cv2.INTER_AREA if side > self.size else cv2.INTER_LANCZOS4
        square = cv2.resize(image[top : top + side, left : left + side], (self.size, self.size), interpolation=method)
        return torch.from_numpy(square).permute(2, 0, 1).contiguous().float().div_(127.5).sub_(1.0)


def open_loader(job: Job) -> Epoch:
    cv2.setNumThreads(0)
    loader = DataLoader(
        AreaResized(job.files, job.size),
        batch_size=job.batch_size,
        shuffle=True,
        num_workers=job.workers,
        persistent_workers=True,
    )

    def epoch() -> Iterator[torch.Tensor]:
        yield from loader

    return epoch
