"""Batches, order and record keys have the values they have had since they were recorded here."""

import json

import numpy as np
import pytest
import xxhash
from loader_helpers import digest
from PIL import Image

import calotype
from calotype.encodings.dataset_records import DatasetRecords, Fingerprints, Variants
from calotype.types import SampleKey


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Images of the very size that is trained: no library resamples them, so their bits are always the same."""
    folder = tmp_path_factory.mktemp("golden")
    lines = []
    for number in range(7):
        pixels = np.random.Generator(np.random.PCG64(number)).integers(0, 256, (32, 32, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
        captions = [f"image {number}, red, green", f"number {number}, one, two, three"]
        lines.append(json.dumps({"file_name": f"{number}.png", "text": captions}))
    (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n")
    return calotype.text_to_image_dataset(
        path=folder,
        img_transform={"resize": 32, "center_crop": True, "horizontal_flip": 0.5},
        caption_transform={"shuffle_parts": 0.5, "drop": 0.2, "trigger": "sks"},
        include=("id", "text"),
        seed=5,
    )


def short(parts):
    return xxhash.xxh3_64_hexdigest("\n".join(parts).encode())


def test_batches_and_order(dataset):
    with calotype.Loader(dataset, 3, seed=11, threads=2, in_process=True) as loader:
        batches = [digest(batch) for _ in range(3) for batch in loader]
        assert short(batches) == "76e347a86be34ae0"
        plan = [loader.plan.epoch(4)[step] for step in range(len(loader))]
        assert loader.state_dict()["order"] == "853450af156a2026"
        assert short(str(tuple(key)) for step in plan for key in step) == "a03344fd3eca8524"


def test_record_keys(dataset):
    records = DatasetRecords(dataset, Fingerprints("model a", "model b"), Variants(caption=2))
    keys = [SampleKey(index, epoch, size=None, seed=3) for epoch in range(3) for index in range(7)]
    assert short(records.image(key).key.hex() for key in keys) == "006c226be572d50f"
    assert short(records.text_key(records.caption(key).text).hex() for key in keys) == "5caad637a3f37d41"
