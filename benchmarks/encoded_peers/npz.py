"""kohya's sd-scripts: `.npz` files of float32, one for the latents and one for the texts of each sample; DataLoader.

As `library/strategy_flux.py` and `library/strategy_base.py` write them: `np.savez`, not compressed, bfloat16 widened to
float32. They store sampled latents; here the posterior's moments, as in all rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from encoded_peers import Batch, Epoch, Job, Samples
from encoded_peers.torch_loader import epochs


def write(job: Job, samples: Samples, numbers: Sequence[int]) -> None:
    for number in numbers:
        sample = {name: tensor.float().numpy() for name, tensor in samples[number].items()}
        np.savez(job.folder / f"{number}_1024x1024_flux.npz", latents_128x128=sample["moments"])
        np.savez(
            job.folder / f"{number}_flux_te.npz",
            l_pooled=sample["pooled_prompt_embeds"],
            t5_out=sample["prompt_embeds"],
        )


class Files(torch.utils.data.Dataset[Batch]):
    def __init__(self, job: Job) -> None:
        self._job = job

    def __len__(self) -> int:
        return self._job.samples

    def __getitem__(self, number: int) -> Batch:
        with np.load(self._job.folder / f"{number}_1024x1024_flux.npz") as file:
            latents = file["latents_128x128"]
        with np.load(self._job.folder / f"{number}_flux_te.npz") as file:
            pooled, t5 = file["l_pooled"], file["t5_out"]
        sample = {"moments": latents, "prompt_embeds": t5, "pooled_prompt_embeds": pooled}
        return {name: torch.from_numpy(array).bfloat16() for name, array in sample.items()}


def open_loader(job: Job) -> Epoch:
    def epoch() -> Iterator[Batch]:
        yield from loader

    loader = epochs(Files(job), job)
    return epoch
