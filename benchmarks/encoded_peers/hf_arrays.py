"""Hugging Face datasets: array columns of the same bits as int16 (Arrow has no bfloat16), or binary columns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import datasets
import numpy as np
import torch

from encoded_peers import FIELDS, Batch, Epoch, Job, Samples, as_bytes, stacked
from encoded_peers.torch_loader import epochs


def write(job: Job, samples: Samples, numbers: Sequence[int], *, binary: bool = False) -> None:
    kinds = {name: datasets.Value("binary") if binary else _array(shape) for name, shape in FIELDS.items()}
    features = datasets.Features(kinds)
    with datasets.arrow_writer.ArrowWriter(
        features=features, path=str(job.folder / "data.arrow"), writer_batch_size=8
    ) as out:
        for number in numbers:
            tensors = samples[number].items()
            out.write({n: as_bytes(t) if binary else t.view(torch.int16).numpy() for n, t in tensors})
        out.finalize()


def _array(shape: tuple[int, ...]) -> Any:
    kinds: Mapping[int, Any] = {2: datasets.Array2D, 3: datasets.Array3D}
    if len(shape) == 1:
        return datasets.Sequence(datasets.Value("int16"), length=shape[0])
    return kinds[len(shape)](shape=shape, dtype="int16")


def open_loader(job: Job, *, binary: bool = False) -> Epoch:
    dataset = datasets.Dataset.from_file(str(job.folder / "data.arrow"))
    # `numpy`, not `torch`: the same arrays, without a further copy of each.
    loader = epochs(
        dataset if binary else dataset.with_format("numpy", dtype=np.int16), job, collate=stacked if binary else _stack
    )

    def epoch() -> Iterator[Batch]:
        yield from loader

    return epoch


def _stack(samples: list[Mapping[str, Any]]) -> Batch:
    return stacked([{name: np.ascontiguousarray(one[name]).data.cast("B") for name in FIELDS} for one in samples])
