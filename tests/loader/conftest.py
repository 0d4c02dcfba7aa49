"""Datasets for the loader's tests."""

import pytest
from loader_helpers import AUGMENT

import calotype
from calotype.loader.source import ProcessSource


@pytest.fixture(autouse=True)
def process_from_the_first_batch(monkeypatch):
    """Tests of a loader process get every batch from it, also those that threads make while it starts."""
    monkeypatch.setattr("calotype.loader.loader.StartingSource", ProcessSource)


@pytest.fixture
def dataset(photos):
    """Buckets, every augmentation, ids and texts."""
    return calotype.text_to_image_dataset(path=photos, resolution=256, include=("id", "text"), seed=5, **AUGMENT)


@pytest.fixture
def square(photos):
    """One size, nothing random but a flip."""
    return calotype.text_to_image_dataset(
        path=photos,
        img_transform={"resize": 128, "center_crop": True, "horizontal_flip": 0.5},
        include=("id", "text"),
    )
