"""What the tests of distilling share: crops of six photos, whose teacher says the same things in other words."""

import json

import numpy as np
import tiny_captioners
from PIL import Image

from calotype import distill

TEACHER = {  # in words that the tiny captioner knows, and in an order that it has never put them in
    "astronaut.png": "a smiling woman in an orange suit",
    "chelsea.png": "a cat, ginger",
    "coffee.png": "a spoon on the saucer, coffee",
    "motorcycle_left.png": "a garage, a motorcycle",
    "rocket.jpg": "a night, a rocket",
    "hubble_deep_field.jpg": "a black sky, galaxies",
}


def make_crops(folder, *, each=10, captions=True):
    """Crops of 112 × 112 pixels, `each` of every photo, with the teacher's captions or without any."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    lines = []
    for photo in tiny_captioners.photos():
        image = Image.open(photo).convert("RGB")
        for number in range(each):
            side = int(rng.uniform(0.6, 0.95) * min(image.size))
            x, y = int(rng.integers(image.width - side + 1)), int(rng.integers(image.height - side + 1))
            name = f"{photo.stem}-{number}.jpg"
            image.crop((x, y, x + side, y + side)).resize((112, 112)).save(folder / name, quality=92)
            lines.append(json.dumps({"file_name": name, "text": TEACHER[photo.name]}))
    if captions:
        (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n")
    (folder.parent / "describe.txt").write_text(tiny_captioners.PROMPT)
    return folder


def config(folder, student, output, *, validation=0, **options):
    """A whole config, as `load_config` gives it."""
    usual = {
        "student": str(student),
        "preset": str(folder.parent / "describe.txt"),
        "output_dir": str(output),
        "max_steps": 4,
        "batch_size": 2,
        "gradient_accumulation_steps": 2,
        "learning_rate": 0.001,
        "lr_scheduler": "constant",
        "max_tokens": 16,
        "log_every": 1,
        "checkpoint_every": 0,
        "device": "cpu",
    }
    return {"dataset": {"path": str(folder), "validation": validation}, "distill": usual | options}


def run(folder, student, output, *, resume=False, show=lambda progress: None, tell=lambda text: None, **options):
    """Distils; gives the report."""
    return distill.run(config(folder, student, output, **options), resume=resume, show=show, tell=tell)
