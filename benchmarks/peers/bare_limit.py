"""The bare limit: threads that read, decode and resize, and nothing else. No batches, no shuffling, no float.

The upper limit of a loader with these two functions; the pixels go into preallocated memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import simplejpeg
import torch
from torch.nn.functional import interpolate

from peers import Epoch, Job


def open_loader(job: Job) -> Epoch:
    torch.set_num_threads(1)  # Two workers are two threads: none of them may start more.
    files = job.files
    out = torch.zeros(len(files), 3, job.size, job.size, dtype=torch.uint8)

    def load(index: int) -> None:
        image = torch.from_numpy(simplejpeg.decode_jpeg(files[index].read_bytes()))  # (H, W, 3)
        height, width = image.shape[:2]
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        # A square that lies in one piece resizes faster than a view of the whole, by more than the copy costs.
        square = image[top : top + side, left : left + side].contiguous().permute(2, 0, 1)[None]
        out[index] = interpolate(square, size=(job.size, job.size), mode="lanczos", antialias=True)[0]

    threads = ThreadPoolExecutor(job.workers)

    def epoch() -> Iterator[torch.Tensor]:
        for index, _ in enumerate(threads.map(load, range(len(files)))):
            if (index + 1) % job.batch_size == 0:
                yield out[index + 1 - job.batch_size : index + 1]

    return epoch
