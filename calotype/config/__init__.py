"""A config: a YAML file and `key=value` overrides, parsed once into typed sections.

    config.py     Config, the whole; each of its sections is one class in a file of its own:
    dataset.py    which images and captions there are (with buckets.py and image_files.py)
    loader.py     how batches are made
    encodings.py  what is encoded, with which model, and where it is stored
    train.py      how to train
    distill.py    how to train a captioner
    section.py    what all sections share; expected.py and errors.py say what is wrong with one
    load.py       reads YAML; overrides.py applies `key=value`; origins.py says where each value came from
    reference.py  the schema as a table and as a JSON Schema

pydantic checks the values: it brings the JSON Schema, and the studio's server and typed Python need nothing else.
`calotype.build` makes datasets and loaders of a config.
"""

from __future__ import annotations

import importlib
from typing import Any, Final

from calotype.config.component import instantiate
from calotype.config.config import Config
from calotype.config.keys import KEYS
from calotype.config.load import load_config, read_config

__all__ = ["KEYS", "Config", "instantiate", "load_config", "read_config"]

_MOVED: Final = ("build_dataset", "build_encode_job", "build_loader", "build_training", "open_training")


def __getattr__(name: str) -> Any:
    """The builders by the name that they had before `calotype.build`."""
    if name not in _MOVED:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module("calotype.build"), name)
