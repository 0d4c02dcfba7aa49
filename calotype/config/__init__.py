"""A config: a YAML file and `key=value` overrides, parsed once into typed sections.

    config.py     Config, the whole; each of its sections is one class in a file of its own:
    dataset.py    which images and captions there are (with buckets.py and image_files.py)
    loader.py     how batches are made
    encodings.py  what is encoded, with which model, and where it is stored
    train.py      how to train
    distill.py    how to train a captioner
    section.py    what all sections share; expected.py and errors.py say what is wrong with one
    load.py       reads YAML; overrides.py applies `key=value`; origins.py says where each value came from
    derived.py    marks a default that is no constant; output_dir.py finds that of a training
    reference.py  the schema as a table and as a JSON Schema

pydantic checks the values: it brings the JSON Schema, and the studio's server and typed Python need nothing else.
`build_dataset(config)` is in `calotype.data`, `build_loader(config)` in `calotype.loader`.
"""

from __future__ import annotations

from calotype.config.component import instantiate
from calotype.config.config import Config
from calotype.config.keys import KEYS
from calotype.config.load import load_config, read_config
from calotype.core.lazy import exports

__all__ = ["KEYS", "Config", "instantiate", "load_config", "read_config"]

__getattr__ = exports(
    __name__,
    {  # by the names that they had before each package built its own
        "build_dataset": "..data.build",
        "build_encode_job": "..encodings.build",
        "build_loader": "..loader.build",
        "build_training": "..train.data",
        "open_training": "..train.data",
    },
)
