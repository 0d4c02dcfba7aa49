"""One file per sample, as most training scripts cache: torch.save's `.pt`, or safetensors; under DataLoader."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import torch

from encoded_peers import Batch, Epoch, Job, Samples
from encoded_peers.torch_loader import epochs

Kind = Literal["pt", "safetensors"]


def write(job: Job, samples: Samples, numbers: Sequence[int], *, kind: Kind = "pt") -> None:
    from safetensors.torch import save_file

    for number in numbers:
        path = job.folder / f"{number}.{kind}"
        if kind == "pt":
            torch.save(samples[number], path)
        else:
            save_file(samples[number], path)


class Files(torch.utils.data.Dataset[Batch]):
    def __init__(self, job: Job, kind: Kind) -> None:
        self._paths = [job.folder / f"{number}.{kind}" for number in range(job.samples)]
        self._kind = kind

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, number: int) -> Batch:
        if self._kind == "pt":
            return torch.load(self._paths[number], weights_only=True, mmap=True)
        from safetensors.torch import load_file

        return load_file(self._paths[number])


def open_loader(job: Job, *, kind: Kind = "pt") -> Epoch:
    def epoch() -> Iterator[Batch]:
        yield from loader

    loader = epochs(Files(job, kind), job)
    return epoch
