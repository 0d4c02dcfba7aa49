"""What the loader's tests share: augmentations, a batch as a short string, and trainers as processes of their own."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import torch
import xxhash

AUGMENT = {
    "img_transform": {
        "random_crop": {"scale": [0.7, 1.0]},
        "horizontal_flip": 0.5,
        "color_jitter": {"brightness": 0.2, "saturation": 0.2},
    },
    "caption_transform": {"shuffle_parts": 0.5, "drop_parts": 0.2, "drop": 0.1},
}


def digest(batch):
    """A batch as a short string: equal if and only if every bit is."""
    parts = []
    for key, value in sorted(batch.items()):
        data = (
            value.numpy().tobytes() + repr(value.shape).encode()
            if isinstance(value, torch.Tensor)
            else repr(value).encode()
        )
        parts.append(f"{key}={xxhash.xxh3_64_hexdigest(data)}")
    return " ".join(parts)


def ids(batches):
    return [id for batch in batches for id in batch["id"]]


TRAINER = """
import json, sys, time
sys.path.insert(0, {here!r})
import calotype
from loader_helpers import AUGMENT, digest
dataset = calotype.text_to_image_dataset(path={photos!r}, resolution=256, include=("id", "text"), seed=5, **AUGMENT)
loader = calotype.Loader(dataset, 3, threads=2)
{body}
"""


def start_trainer(photos, body, **popen):
    """A script of its own, without `if __name__ == "__main__"`, as people write them."""
    code = TRAINER.format(here=str(Path(__file__).parent), photos=str(photos), body=body)
    return subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **popen,
    )


def read_lines(process, n):
    lines = [process.stdout.readline() for _ in range(n)]
    if not lines[-1]:
        raise AssertionError(process.stderr.read())
    return [json.loads(line) for line in lines]


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"


def until(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.05)
    return False
