"""A cache of its own for each test, and small real images to put anywhere."""

import io
from pathlib import Path

import pytest
from PIL import Image


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.mktemp("calotype-cache")
    monkeypatch.setenv("CALOTYPE_CACHE", str(folder))
    return folder


@pytest.fixture(scope="session")
def jpeg(skimage_data):
    """Bytes of a small real photo; another one for each number."""
    photo = Image.open(skimage_data / "astronaut.png").convert("RGB")

    def make(number=0, format="JPEG"):
        file = io.BytesIO()
        photo.crop((number, number, number + 64, number + 48)).save(file, format)
        return file.getvalue()

    return make


@pytest.fixture
def put(tmp_path, jpeg):
    """put("cats/a.jpg") makes a photo there, put("a.txt", "a cat") a text file; gives the path."""

    def put(name, content=None):
        path = tmp_path / "set" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if content is None:
            content = jpeg(abs(hash(name)) % 400)
        if isinstance(content, str):
            content = content.encode()
        path.write_bytes(content)
        return path

    put.root = Path(tmp_path / "set")
    return put


@pytest.fixture
def read():
    """The bytes that an image reference stands for."""

    def read(image):
        if image.key is not None:
            import lmdb

            environment = lmdb.open(image.path, subdir=Path(image.path).is_dir(), readonly=True, lock=False)
            with environment, environment.begin() as transaction:
                return transaction.get(image.key)
        with open(image.path, "rb") as file:
            file.seek(image.offset)
            return file.read(-1 if image.size is None else image.size)

    return read
