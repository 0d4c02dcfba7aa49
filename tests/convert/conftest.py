"""One small dataset with everything a form may lose, and in each form; made once."""

import json

import pytest
from convert_helpers import convert
from PIL import Image

from calotype.convert import FORMS

NAMES = ("a.png", "a.jpg", "Straße/夜 é.jpg", "10_sks dog/a.jpg", "x.y/b.c.webp")
"""Clashing stems, unicode, a space, what looks like a repeat folder, dots."""

CAPTIONS = (
    ['a woman in an orange suit, "smiling"', "second, with a comma"],
    ["ein Haus – 夜, émoji 🐈"],
    [],
    ["  spaces kept  ", "three", "{braces} and 'quotes'"],
    ["2024-01-02"],
)
WEIGHTS = (1, 3, 0.5, 10, 0)


@pytest.fixture(scope="session")
def source(tmp_path_factory, skimage_data):
    """A folder of five real photos with `metadata.jsonl`."""
    folder = tmp_path_factory.mktemp("source") / "my photos"
    photos = ["astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "motorcycle_left.png"]
    lines = []
    for number, (name, captions, weight) in enumerate(zip(NAMES, CAPTIONS, WEIGHTS, strict=True)):
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        image = Image.open(skimage_data / photos[number]).convert("RGB")
        image.crop((0, 0, 48 + 16 * number, 64)).save(file)
        line = {"file_name": name, "text": captions, "id": f"№{number}", "weight": weight}
        line |= {"width": 48 + 16 * number, "height": 64, "artist": f"who {number}", "text_": "not a caption"}
        line |= {"tags": {"year": 1990 + number, "marks": ["x"] * number}, "mixed": [number, "text"][number % 2]}
        lines.append(line | {"rejected": number == 4, "score": number / 3})
    text = "\n".join(json.dumps(line, ensure_ascii=False) for line in lines) + "\n"
    (folder / "metadata.jsonl").write_text(text, encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def converted(source, tmp_path_factory):
    """Form → the dataset in it."""
    place = tmp_path_factory.mktemp("converted")
    for to in FORMS:
        convert(source, place / to, to)
    return {to: place / to for to in FORMS}
