"""What the tests of encodings share: a small folder of real photos, and the job on it with a tiny pipeline."""

import shutil
from functools import cache
from pathlib import Path

import skimage
import torch
from PIL import Image
from tiny_pipelines import tiny_pipeline

import calotype
from calotype.encodings.dataset import EncodedDataset
from calotype.encodings.dataset_records import Variants
from calotype.encodings.encode import encode_job
from calotype.encodings.frozen import FrozenModels
from calotype.encodings.job import EncodeJob
from calotype.encodings.store import EncodingStore

NAMES = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg")


def make_folder(folder, names=NAMES, size=(96, 72)):
    """Photos of a few kilobytes, each with a caption file."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        stem = Path(name).stem
        with Image.open(Path(skimage.__file__).parent / "data" / name) as image:
            image.convert("RGB").resize(size).save(folder / f"{stem}.png")
        (folder / f"{stem}.txt").write_text(f"a photo of {stem}, bright, large")
    return folder


@cache
def frozen(name="flux.1-dev", **options):
    """The models of a tiny pipeline, in float32; loaded once for all tests of a process."""
    return FrozenModels(tiny_pipeline(name), **{"dtype": torch.float32} | options)


def copied_pipeline(folder, name="flux.1-dev"):
    """A pipeline of one's own, to change."""
    shutil.copytree(tiny_pipeline(name), folder, symlinks=False)
    return folder


def make_dataset(folder, model="flux.1-dev", **options):
    return calotype.text_to_image_dataset(
        calotype.PixelsTransform(),
        path=str(folder),
        **{"model": model, "resolution": 64, "include": ["id", "text"]} | options,
    )


def make_job(folder, store, *, models=None, variants=None, batch_size=None, **options):
    models = models or frozen()
    return EncodeJob(
        dataset=make_dataset(folder, models.spec.name, **options),
        models=models,
        store=EncodingStore(store, create=True),
        variants=variants or Variants(),
        threads=2,
        batch_size=batch_size,
    )


def run(*args, **kwargs):
    """Encodes, and gives the job and its report."""
    job = make_job(*args, **kwargs)
    return job, encode_job(job)


def encoded(job, kind=EncodedDataset):
    """The job's dataset, read from its store."""
    return kind(job.dataset, job.models, job.store, variants=job.variants)
