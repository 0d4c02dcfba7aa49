"""Encodes a dataset or a job, on this machine or on a Ray cluster: `calotype encode` from Python."""

from __future__ import annotations

import os
from typing import Any, Literal

import torch

from calotype.config.encodings import EncodingConfig
from calotype.data.dataset import TextToImageDataset
from calotype.encodings.job import EncodeJob
from calotype.encodings.options import frozen_models, open_store, variants
from calotype.encodings.report import EncodeReport
from calotype.errors import ConfigError
from calotype.progress import Track, silent, track

__all__ = ["encode_dataset", "encode_job"]


def encode_dataset(
    dataset: TextToImageDataset,
    *,
    device: str | torch.device | None = None,
    batch_size: int | None = None,
    threads: int | None = None,
    engine: Literal["local", "ray"] = "local",
    address: str | None = None,
    track: Track = track,
    **options: Any,
) -> EncodeReport:
    """Run a model's frozen encoders over a dataset once, and store their outputs; encode only missing records.

    Args:
        dataset: A dataset built for the same model, so that its sizes fit. Its model transform is not used.
        device: Device of the models. Defaults to the GPU if there is one, else the CPU.
        batch_size: Images encoded at once. By default it depends on their size.
        threads: Images decoded at once. Defaults to the number of cores.
        engine: `local` encodes in this process, `ray` on a cluster.
        address: Address of the cluster. Defaults to `$RAY_ADDRESS`, else to a cluster on this machine, which is started
            if there is none.
        track: Shows the progress. Defaults to a display on standard error.
        **options: Options of `EncodingConfig`: `model`, `store`, `dtype`, `latents`, `max_sequence_length`,
            `image_variants`, `caption_variants`.

    Raises:
        ConfigError: An option is unknown or has an invalid value; or the dataset has a continuous augmentation and no
            number of variants is set.
        MissingDependencyError: The engine or the models need an extra that is not installed.
        StoreError: The store can't be written, or its disk has too little space.
    """
    known = EncodingConfig.of(options)
    job = EncodeJob(
        dataset=dataset,
        models=frozen_models(known, device or ("cuda" if torch.cuda.is_available() else "cpu")),
        store=open_store(known, create=True),
        variants=variants(known),
        threads=threads or os.cpu_count() or 1,
        batch_size=batch_size,
    )
    return encode_job(job, engine=engine, address=address, track=track)


def encode_job(
    job: EncodeJob,
    *,
    engine: Literal["local", "ray"] = "local",
    address: str | None = None,
    track: Track = silent,
) -> EncodeReport:
    """Encode the records of a job that its store does not have.

    If the run ends early (an error, Ctrl-C, a kill), the batches already written remain; the next run encodes the rest.

    Args:
        job: The job.
        engine: `local` encodes in this process, `ray` on a cluster.
        address: Address of the cluster, as for `encode_dataset`.
        track: Shows the progress.

    Raises:
        ConfigError: The engine is unknown; the dataset has augmentations that can't be enumerated and no number of
            variants is set; or the model can't be loaded.
        StoreError: The store can't be written, or its disk has too little space.
    """
    if engine not in ("local", "ray"):
        raise ConfigError(f"engine: found {engine!r}, expected local or ray")
    if engine == "local":
        if address is not None:
            raise ConfigError(f"address: found {address!r} without engine ray, which it is for")
        return job.run(job.worker, track)
    from calotype.encodings import ray

    return ray.encode(job, address=address, track=track)
