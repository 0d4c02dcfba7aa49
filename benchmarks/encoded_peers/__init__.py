"""The contestants of `encoded.py`: one file each, all with the same two functions.

`write(job, samples, numbers)` stores the samples of these numbers under `job.folder`, in the contestant's format.
`open_loader(job)` prepares its loader once, and returns a function that runs one epoch: an iterator of batches, each a
mapping of the three tensors of `FIELDS`, batch first, bfloat16, on the CPU. Every contestant shuffles.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, Final

import torch

Batch = Mapping[str, torch.Tensor]
Epoch = Callable[[], Iterator[Batch]]

FIELDS: Final[Mapping[str, tuple[int, ...]]] = {
    "moments": (32, 128, 128),
    "prompt_embeds": (512, 4096),
    "pooled_prompt_embeds": (768,),
}
"""What FLUX.1 keeps of a sample at 1024²: 5.24 MB in bfloat16."""

BYTES: Final = {name: 2 * prod(shape) for name, shape in FIELDS.items()}
SAMPLE_BYTES: Final = sum(BYTES.values())
_POOL = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What every contestant is asked to do."""

    folder: Path
    """Of its own."""
    samples: int
    batch_size: int
    workers: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Contestant:
    """A row of the table."""

    name: str
    label: str
    module: str
    needs: str | None = None
    """A package that it can't run without."""
    reads: str | None = None
    """The contestant whose files it reads; its own if None."""
    options: tuple[tuple[str, Any], ...] = ()
    """Keyword arguments of its `open_loader`."""
    write_options: tuple[tuple[str, Any], ...] = ()


class Samples:
    """The samples that all of them keep: random numbers, the same from run to run, each stamped with its own number.

    The first 16 bits of every tensor are the sample's number, so that whoever reads a batch knows which samples it is
    of and whether their parts belong together; the rest repeats after 16 samples.

    Args:
        made: Those to have ready in memory.
    """

    def __init__(self, made: Iterable[int] = ()) -> None:
        random = torch.Generator().manual_seed(0)
        self._pool = {name: torch.randn(_POOL, *shape, generator=random).bfloat16() for name, shape in FIELDS.items()}
        self._made = {number: self._make(number) for number in made}

    def __getitem__(self, number: int) -> dict[str, torch.Tensor]:
        made = self._made.get(number)
        return self._make(number) if made is None else made

    def _make(self, number: int) -> dict[str, torch.Tensor]:
        sample = {name: pool[number % _POOL].clone() for name, pool in self._pool.items()}
        for tensor in sample.values():
            tensor.view(torch.int16).view(-1)[0] = number
        return sample

    def numbers(self, batch: Batch) -> list[int]:
        """The samples that a batch is of.

        Raises:
            ValueError: It has another shape or dtype than it should, or a sample is not what was kept.
        """
        for name, shape in FIELDS.items():
            found = batch[name]
            if tuple(found.shape[1:]) != shape or found.dtype != torch.bfloat16:
                raise ValueError(f"{name}: {tuple(found.shape)}, {found.dtype}")
        numbers: list[int] = batch["moments"].view(torch.int16).flatten(1)[:, 0].tolist()
        for row, number in enumerate(numbers):
            for name, kept in self[number].items():
                if not torch.equal(batch[name][row].view(torch.int16), kept.view(torch.int16)):
                    raise ValueError(f"{name} of sample {number} is not what was kept")
        return numbers


def as_bytes(tensor: torch.Tensor) -> bytes:
    return tensor.reshape(-1).view(torch.uint8).numpy().tobytes()


def stacked(parts: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
    """A batch of samples whose tensors are raw bytes: one copy each, into memory that DataLoader's workers share."""
    batch = {}
    for name, shape in FIELDS.items():
        size = BYTES[name]
        if torch.utils.data.get_worker_info() is None:
            flat = torch.empty(len(parts) * size, dtype=torch.uint8)
        else:
            storage = torch.UntypedStorage._new_shared(len(parts) * size)
            flat = torch.empty(0, dtype=torch.uint8).set_(storage)
        for row, part in enumerate(parts):
            flat[row * size : (row + 1) * size] = torch.frombuffer(part[name], dtype=torch.uint8)
        batch[name] = flat.view(torch.bfloat16).view(len(parts), *shape)
    return batch


CONTESTANTS = (
    Contestant(
        name="limit",
        label="bare limit: two threads of preadv into a ring",
        module="ring",
        reads="calotype",
    ),
    Contestant(name="calotype", label="calotype store, Loader", module="store"),
    Contestant(name="pt", label=".pt per sample, DataLoader", module="files"),
    Contestant(
        name="safetensors",
        label="safetensors per sample, DataLoader",
        module="files",
        needs="safetensors",
        options=(("kind", "safetensors"),),
        write_options=(("kind", "safetensors"),),
    ),
    Contestant(name="npz", label="kohya's .npz (float32), DataLoader", module="npz"),
    Contestant(name="lmdb", label="LMDB, DataLoader", module="lmdb_values", needs="lmdb"),
    Contestant(name="mds", label="mosaicml-streaming (MDS), DataLoader", module="mds", needs="streaming"),
    Contestant(name="litdata", label="litdata, StreamingDataLoader", module="litdata_chunks", needs="litdata"),
    Contestant(name="hf", label="Hugging Face datasets, arrays", module="hf_arrays", needs="datasets"),
    Contestant(
        name="hf-bytes",
        label="Hugging Face datasets, binary columns",
        module="hf_arrays",
        needs="datasets",
        options=(("binary", True),),
        write_options=(("binary", True),),
    ),
)
