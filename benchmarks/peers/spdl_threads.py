"""SPDL: FFmpeg decodes, crops and scales in threads, a whole batch into one buffer."""

from __future__ import annotations

import random
from collections.abc import Iterator

import spdl.io
import torch
from spdl.pipeline import PipelineBuilder

from peers import Epoch, Job


def open_loader(job: Job) -> Epoch:
    torch.set_num_threads(1)  # Two workers are two threads: none of them may start more.
    files = [str(file) for file in job.files]
    # Cropping first spares FFmpeg from scaling what is cut away. Its Lanczos widens when it shrinks, as PIL's does.
    square = f"crop=w='min(iw,ih)':h='min(iw,ih)',scale={job.size}:{job.size}:flags=lanczos,format=rgb24"

    def load(paths: list[str]) -> torch.Tensor:
        buffer = spdl.io.load_image_batch(paths, width=None, height=None, pix_fmt=None, filter_desc=square)
        pixels = spdl.io.to_torch(buffer).permute(0, 3, 1, 2)  # (B, H, W, 3) → (B, 3, H, W)
        return pixels.to(torch.float32, memory_format=torch.contiguous_format).div_(127.5).sub_(1.0)

    def epoch() -> Iterator[torch.Tensor]:
        random.shuffle(files)
        pipeline = (
            PipelineBuilder()
            .add_source(files)
            .aggregate(job.batch_size)
            .pipe(load, concurrency=job.workers)
            .add_sink(job.workers)
            .build(num_threads=job.workers)
        )
        with pipeline.auto_stop():
            yield from pipeline

    return epoch
