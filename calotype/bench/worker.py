"""One process of a bench: encode some rows, or run some training steps on them."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from calotype.bench.laps import WARM_UP, Enough, LapLoader
from calotype.bench.task import Encoded, Measured, Task
from calotype.config import Config
from calotype.config.train import TrainConfig
from calotype.data.dataset import TextToImageDataset
from calotype.data.pixel_cache import PixelCache
from calotype.encodings.build import build_encode_job, open_encoded
from calotype.encodings.encode import encode_job
from calotype.encodings.frozen import FrozenModels
from calotype.encodings.job import EncodeJob
from calotype.errors import CalotypeError
from calotype.models.family import sample_moments
from calotype.progress import silent
from calotype.terminal import say
from calotype.types import Batch, Geometry

__all__ = ["measure", "run_task", "serve"]

_PROBED = 8
"""Number of images from which the size of the pixel cache is estimated."""


def serve() -> None:
    """Run the tasks that standard input names, each in a fork of this process; print their exit codes."""
    from calotype.models.pipeline_folder import import_diffusers
    from calotype.train import loop  # noqa: F401 - imported once for all

    with suppress(CalotypeError):
        import_diffusers()
    for line in sys.stdin:
        if (child := os.fork()) == 0:
            code = 1
            try:
                run_task(*json.loads(line))
                code = 0
            finally:
                os._exit(code)
        _, status = os.waitpid(child, 0)
        say(os.waitstatus_to_exitcode(status))


def run_task(asked: str, answer: str, errors: str) -> None:
    """Read the task file, run the task, write the result file; all that is printed goes to the third file."""
    with Path(errors).open("w", encoding="utf-8") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    try:
        task = Task(**json.loads(Path(asked).read_bytes()))
        Path(answer).write_text(json.dumps(measure(task)), encoding="utf-8")
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        raise


def measure(task: Task) -> dict[str, Any]:
    """Run a task in this process; return the fields of `Encoded` or `Measured`, or `refused` with the reason."""
    try:
        return dataclasses.asdict(_encode(task) if task.encode else _train(task))
    except torch.OutOfMemoryError:
        what = "the frozen models and the transformer" if task.online else "the transformer"
        return {"refused": f"out of memory on {task.device}, with {what} there"}
    except CalotypeError as error:
        return {"refused": str(error)}


def _encode(task: Task) -> Encoded:
    """Encode in three jobs (the first image, the second, all others), to separate loading from computing."""
    job = build_encode_job(Config.from_mapping(task.config), device=task.device)
    rows = list(task.rows)
    first, second, rest = (_encode_rows(job, part) for part in (rows[:1], rows[1:2], rows[2:]))
    others = len(rows) - 2
    each = max(0.0, rest[0] - second[0]) / (others - 1) if others > 1 else max(second[0], rest[0])
    return Encoded(first_seconds=first[0], picture_seconds=each, bytes=first[1] + second[1] + rest[1])


def _encode_rows(job: EncodeJob, rows: list[int]) -> tuple[float, int]:
    """Encode some rows; return the time in seconds and the number of bytes."""
    if not rows:
        return 0.0, 0
    report = encode_job(dataclasses.replace(job, dataset=job.dataset.select(rows)), track=silent)
    return report.seconds, report.bytes


def _train(task: Task) -> Measured:
    """Train on the rows with a `LapLoader`, and return the measured times and memory."""
    from calotype.train.loop import make_accelerator, train

    # Build the dataset: pixels for online encoding, else encodings.
    config = Config.from_mapping(task.config)
    options = config.train or TrainConfig()
    job = build_encode_job(config, device=task.device)
    pixels = job.dataset.select(list(task.rows))
    section = config.encoding_section()
    dataset = pixels if task.online else open_encoded(pixels, job.models, section)

    # Train until the loader has timed enough batches.
    loader_options = {**config.loader_options(), "device": task.device}
    encode = _encoder(job.models) if task.online else None
    with LapLoader(dataset, **loader_options, steps=task.steps, encode=encode) as loader:
        options = options.updated(
            output_dir=task.output,
            max_steps=max(options.max_steps, loader.batches + 1),
            trackers=(),
            sample_prompts=(),
        )
        with suppress(Enough):
            train(make_accelerator(options, device=task.device), loader, job.models, options)
        host = _peak("self", loader.process)

    # Compute the figures.
    caches = task.online and (pixels.pixel_cache is not None or loader_options.get("device_cache"))
    laps, first = loader.laps, loader.first
    first_pace = laps.pace(min(WARM_UP, first - 1), first)
    if section.on_the_fly and not task.online:  # after the first epoch, the records it did not sample are encoded
        first_pace += (laps.came[first] - laps.asked[first]) / len(pixels)
    return Measured(
        first_pace=first_pace,
        pace=laps.pace(first + WARM_UP, loader.batches),
        data_wait=laps.wait(first + WARM_UP, loader.batches),
        host_bytes=host,
        device_bytes=torch.cuda.max_memory_allocated(task.device) if torch.device(task.device).type == "cuda" else None,
        kept_bytes=_kept_bytes(pixels, loader) if caches else 0,
    )


def _encoder(models: FrozenModels) -> Callable[[Batch], Batch]:
    """Return a function that encodes a batch of pixels and texts, as an online trainer does in each step."""

    def encode(batch: Batch) -> Batch:
        record = models.encode_pictures(batch["img"])
        if (moments := record.get("moments")) is None:
            raw = record["latents"]
        else:
            mean = moments.chunk(2, dim=1)[0]  # (B, 2C, h, w) → (B, C, h, w)
            raw = sample_moments(moments, torch.randn_like(mean, dtype=torch.float32))
        texts = models.family.batch_texts(models.encode_texts(batch["text"]), length=models.max_sequence_length)
        count, _, height, width = batch["img"].shape
        # The size conditioning of an uncropped image: its values do not change the time of a step.
        size = (height, width)
        whole = Geometry(original_size=size, box=(0, 0, *size), crop_top_left=(0, 0), target_size=size)
        sizes = {
            key: value.to(raw.device).expand(count, -1) for key, value in models.family.conditioning(whole).items()
        }
        return {"latents": models.family.latents(raw, models.scaling), **texts, **sizes}

    return encode


def _kept_bytes(pixels: TextToImageDataset, loader: LapLoader) -> int:
    """Return the average bytes of an image in a pixel cache."""
    cache = PixelCache()
    probe = pixels.with_cache(cache)
    for key in loader.plan.epoch(0)[0][:_PROBED]:
        probe.prepare(key)
    return cache.nbytes // max(1, len(cache))


def _peak(*processes: str | int | None) -> int | None:
    """Return the sum of the processes' peak resident bytes; shared pages count for each.

    None if the system does not report it. `ru_maxrss` would not do: a child inherits it from its parent at the fork.
    """
    total = 0
    for process in processes:
        if process is None:
            continue
        try:
            status = Path(f"/proc/{process}/status").read_text(encoding="utf-8")
        except OSError:
            return None
        if (found := re.search(r"VmHWM:\s+(\d+) kB", status)) is None:
            return None
        total += 1024 * int(found[1])
    return total
