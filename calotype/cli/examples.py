"""The examples at the end of each command's `--help`: one or two that people run most, each with what it is for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

__all__ = ["EXAMPLES"]

EXAMPLES: Final[Mapping[str, tuple[str, ...]]] = {
    "": (
        "calotype init photos --model flux.1-dev --trigger cpelletier",
        "calotype check photos.yaml    # problems that can be found before training",
        "calotype train photos.yaml max_steps=2000 learning_rate=5e-5",
    ),
    "init": (
        "calotype init photos --model flux.1-dev --trigger cpelletier",
        "calotype init rows.jsonl --model sdxl --trigger cpelletier -o run.yaml",
    ),
    "demo": ("calotype demo    # into the folder demo",),
    "models": ("calotype models", "calotype models --json"),
    "info": (
        "calotype info photos resolution=512 --model flux.1-dev",
        "calotype info photos.yaml batch_size=4 --seconds 3",
    ),
    "check": (
        "calotype check photos.yaml",
        "calotype check photos resolution=512 --model flux.1-dev --fix-list fix.txt",
    ),
    "preview": (
        "calotype preview photos.yaml",
        "calotype preview photos resolution=512 --batches 2 -o sheet.png",
    ),
    "studio": ("calotype studio photos", "calotype studio photos.yaml --port 8123 --no-open"),
    "caption": (
        "calotype caption photos --dry-run 3    # look at three captions first",
        "calotype caption photos --url http://localhost:8000/v1 --preset short",
    ),
    "convert": (
        "calotype convert photos shards --to webdataset",
        "calotype convert photos shards --to webdataset --verify",
    ),
    "encode": (
        "calotype encode photos.yaml --dry-run    # how much, how long",
        "calotype encode photos resolution=512 --model flux.1-dev",
    ),
    "train": (
        "calotype train photos.yaml max_steps=2000 lora_rank=32",
        "calotype train photos.yaml --resume    # after an interruption",
    ),
    "bench": (
        "calotype bench photos.yaml",
        "calotype bench photos.yaml --strategies none,encodings --steps 10",
    ),
    "distill": ("calotype distill distill.yaml", "calotype distill distill.yaml max_steps=500 --resume"),
    "config": (
        "calotype config show photos.yaml batch_size=4",
        "calotype config keys train",
    ),
    "config show": ("calotype config show photos.yaml batch_size=4",),
    "config keys": (
        "calotype config keys",
        "calotype config keys train",
    ),
    "config schema": ("calotype config schema > config.schema.json",),
    "cache": ("calotype cache ls", "calotype cache prune --for photos.yaml --dry-run"),
    "cache ls": ("calotype cache ls", "calotype cache ls encodings"),
    "cache verify": ("calotype cache verify", "calotype cache verify encodings --drop"),
    "cache prune": ("calotype cache prune --for photos.yaml --for faces.yaml --dry-run",),
    "cache export": ("calotype cache export encodings copy --kind text",),
}
"""By the command's path below `calotype`."""
