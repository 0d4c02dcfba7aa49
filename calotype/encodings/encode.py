"""Encoding a dataset, or a job, on this machine or on a Ray cluster: what `calotype encode` does, from Python."""

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
    """Runs a model's frozen encoders over a dataset once, and keeps what they give; makes only what is missing.

    Args:
        dataset: Build it for the same model, so that its sizes fit; its model transform plays no part.
        device: Where the models run; a GPU if there is one.
        batch_size: Images encoded at once; by default by their size.
        threads: Images decoded at once; by default the number of cores.
        engine: `local` is this process, `ray` a cluster.
        address: Of the cluster; by default `$RAY_ADDRESS`, else one is started.
        track: Shows the progress; on standard error by default.
        **options: Those of `EncodingConfig`: `model`, `store`, `dtype`, `latents`, `max_sequence_length`,
            `image_variants`, `caption_variants`.

    Raises:
        ConfigError: An option is unknown or can't be; or something is drawn without end and nothing says how many
            variants stand for it.
        MissingDependencyError: The engine or the models need an extra that is not installed.
        StoreError: The store can't be written, or its disk is too small.
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

    Whatever ends it (an error, Ctrl-C, a kill), the batches that were written stay; the next run encodes the rest.

    Args:
        job: What to encode.
        engine: `local` encodes in this process, `ray` on a cluster.
        address: Address of the cluster, as for `encode_dataset`.
        track: Shows the progress.

    Raises:
        ConfigError: The engine is unknown; the dataset has augmentations that can't be enumerated and no number of
            variants is set; or the model can't be loaded.
        StoreError: The store can't be written, or its disk is too small.
    """
    if engine not in ("local", "ray"):
        raise ConfigError(f"engine: found {engine!r}, expected local or ray")
    if engine == "local":
        if address is not None:
            raise ConfigError(f"address: found {address!r} without engine ray, which it is for")
        return job.run(job.worker, track)
    from calotype.encodings import ray

    return ray.encode(job, address=address, track=track)
