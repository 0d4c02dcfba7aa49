"""Real photos, small, with a caption file each but the last."""

import shutil

import pytest
from PIL import Image
from studio_client import reviewing

CAPTIONS = {
    "astronaut.png": "a woman in a red suit, smiling",
    "chelsea.png": "a ginger cat",
    "coffee.png": "a cup of coffee, a red table",
    "rocket.jpg": "a rocket at night",
    "motorcycle_left.png": None,
}


@pytest.fixture(scope="session")
def small_photos(tmp_path_factory, skimage_data):
    folder = tmp_path_factory.mktemp("studio")
    for place, name in enumerate(CAPTIONS):
        with Image.open(skimage_data / name) as photo:
            photo.convert("RGB").resize((160 + 16 * place, 120)).save(folder / name)
    return folder


@pytest.fixture
def folder(small_photos, tmp_path):
    """A copy to be changed."""
    copy = shutil.copytree(small_photos, tmp_path / "photos")
    for name, caption in CAPTIONS.items():
        if caption is not None:
            (copy / name).with_suffix(".txt").write_text(f"{caption}\n")
    return copy


@pytest.fixture
def client(folder):
    with reviewing(folder) as client:
        yield client
