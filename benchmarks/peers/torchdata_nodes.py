"""torchdata.nodes: threads of the trainer's own process, each decoding and resizing a whole batch with torchvision."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch.utils.data import RandomSampler
from torchdata.nodes import Batcher, Loader, ParallelMapper, SamplerWrapper

from peers import Epoch, Job
from peers.torchvision_io import Decoded


def open_loader(job: Job) -> Epoch:
    torch.set_num_threads(1)  # Two workers are two threads: none of them may start more.
    images = Decoded(job.files, job.size)

    def load(indices: list[int]) -> torch.Tensor:
        return torch.stack([images[index] for index in indices])

    indices = Batcher(SamplerWrapper(RandomSampler(images)), batch_size=job.batch_size)
    loader = Loader(ParallelMapper(indices, load, num_workers=job.workers, method="thread"))

    def epoch() -> Iterator[torch.Tensor]:
        yield from loader

    return epoch
