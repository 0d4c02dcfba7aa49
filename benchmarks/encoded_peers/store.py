"""calotype: a store as `calotype encode` writes it, an EncodedDataset over it, and the Loader with two threads.

No models run: images and texts get the keys that the job would give them, and the records are the samples of this
benchmark. The images have one color each, so that hashing them is cheap.

The latents are not sampled from their posterior: like the peers, this row returns the stored tensors. (On a GPU, the
device samples them, a batch at a time.)

All batches come from the loader process: while it starts, threads of the trainer would make the first ones, which
`startup.py` measures.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from PIL import Image

import calotype.loader.loader
from calotype import Loader, PixelsTransform, text_to_image_dataset
from calotype.data.dataset import TextToImageDataset
from calotype.encodings.dataset import EncodedDataset
from calotype.encodings.dataset_records import DatasetRecords, Fingerprints, Variants
from calotype.encodings.frozen import FrozenModels
from calotype.encodings.keys import scaling_key
from calotype.encodings.store import EncodingStore
from calotype.loader.source import ProcessSource
from encoded_peers import Batch, Epoch, Job, Samples

_BATCH = 8
_TEXTS, _PICTURES = ("prompt_embeds", "pooled_prompt_embeds"), ("moments",)
_COMPONENTS = ("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "vae")


class AsKept(EncodedDataset):
    """Batches hold what the store holds; `finish` is the trainer's, as where there is a GPU."""

    finishes_in_trainer = True

    def finish(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        return dict(batch)


def prepare(job: Job, numbers: Sequence[int]) -> None:
    """The folder of images and the pipeline's, and the libraries that read the folder: no part of what is stored."""
    folder = job.folder / "pictures"
    folder.mkdir()
    for number in numbers:
        image = Image.new("P", (1024, 1024))
        image.putpalette(number.to_bytes(3, "little"))
        image.save(folder / f"{number:06d}.png")
        (folder / f"{number:06d}.txt").write_text(f"image number {number}")
    pipeline = job.folder / "pipeline"
    for name in _COMPONENTS:
        (pipeline / name).mkdir(parents=True)
        (pipeline / name / "config.json").write_text("{}")
    index = {"_class_name": "FluxPipeline", "_name_or_path": "black-forest-labs/FLUX.1-dev"}
    (pipeline / "model_index.json").write_text(json.dumps(index | {name: ["of", "no account"] for name in _COMPONENTS}))
    _dataset(job)


def write(job: Job, samples: Samples, numbers: Sequence[int]) -> None:
    dataset, models = _dataset(job), _models(job)
    records = DatasetRecords(dataset, Fingerprints(models.picture_fingerprint, models.text_fingerprint), Variants())
    rows = range(len(numbers))
    texts = [records.text_key(text) for row in rows for text in records.texts(row) if text]
    pictures = [picture.key for row in rows for picture in records.images(row)]
    with EncodingStore(job.folder / "store", create=True).writer() as writer:
        scaling = {"scaling_factor": torch.tensor(0.3611), "shift_factor": torch.tensor(0.1159)}
        writer.put([scaling_key(records.fingerprints.image)], [scaling], kind="scaling")
        for kind, keys, names in (("text", texts, _TEXTS), ("picture", pictures, _PICTURES)):
            for start in range(0, len(numbers), _BATCH):
                batch = [samples[number] for number in numbers[start : start + _BATCH]]
                tensors = [{name: sample[name] for name in names} for sample in batch]
                writer.put(keys[start : start + _BATCH], tensors, kind=kind)
        # The empty caption is always there; what is kept for it is never read here.
        writer.put([records.text_key("")], [{name: samples[numbers[0]][name] for name in _TEXTS}], kind="text")


def open_dataset(job: Job) -> AsKept:
    return AsKept(_dataset(job), _models(job), EncodingStore(job.folder / "store"))


def open_loader(job: Job) -> Epoch:
    calotype.loader.loader.StartingSource = ProcessSource  # type: ignore[assignment, misc]
    loader = Loader(open_dataset(job), job.batch_size, threads=job.workers)

    def epoch() -> Iterator[Batch]:
        yield from loader

    return epoch


def _dataset(job: Job) -> TextToImageDataset:
    os.environ["CALOTYPE_CACHE"] = str(job.folder / "cache")
    return text_to_image_dataset(PixelsTransform(), path=job.folder / "pictures", model="flux.1-dev", resolution=1024)


def _models(job: Job) -> FrozenModels:
    return FrozenModels(job.folder / "pipeline")
