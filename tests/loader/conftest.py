"""Datasets for the loader's tests."""

import pytest
from loader_helpers import AUGMENT

import calotype


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
