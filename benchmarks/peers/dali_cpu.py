"""NVIDIA DALI with its CPU operators and two threads: decode, Lanczos resize, crop and normalise."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from nvidia.dali import fn, pipeline_def, types
from nvidia.dali.plugin.base_iterator import LastBatchPolicy
from nvidia.dali.plugin.pytorch import DALIGenericIterator

from peers import Epoch, Job


def open_loader(job: Job) -> Epoch:
    @pipeline_def(batch_size=job.batch_size, num_threads=job.workers, device_id=None, seed=0)
    def square() -> Any:
        encoded, _ = fn.readers.file(
            files=[str(file) for file in job.files], random_shuffle=True, initial_fill=32, name="photos"
        )
        images = fn.decoders.image(encoded, device="cpu", output_type=types.RGB)
        images = fn.resize(
            images, device="cpu", resize_shorter=job.size, interp_type=types.INTERP_LANCZOS3, antialias=True
        )
        return fn.crop_mirror_normalize(
            images,
            device="cpu",
            dtype=types.FLOAT,
            output_layout="CHW",
            crop=(job.size, job.size),
            mean=[127.5] * 3,
            std=[127.5] * 3,
        )

    loader = DALIGenericIterator(
        [square()], ["img"], reader_name="photos", last_batch_policy=LastBatchPolicy.PARTIAL, auto_reset=True
    )

    def epoch() -> Iterator[torch.Tensor]:
        for (batch,) in loader:
            yield batch["img"]

    return epoch
