"""calotype: from a folder of pictures to training batches for text-to-image models."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from calotype.build import build_dataset, build_loader
    from calotype.builder import text_to_image_dataset
    from calotype.config import load_config
    from calotype.dataset import TextToImageDataset
    from calotype.encodings.build import encoded_dataset
    from calotype.encodings.dataset import EncodedDataset
    from calotype.engine.encode import encode_dataset
    from calotype.errors import CalotypeError
    from calotype.inspect.preview import preview
    from calotype.ledger import Ledger
    from calotype.loader import Loader
    from calotype.manifest import Manifest, load_manifest
    from calotype.models import (
        FluxTransform,
        PixelsTransform,
        SD3Transform,
        SD15Transform,
        SDXLTransform,
        build_model_transform,
        get_spec,
        list_specs,
    )
    from calotype.sample_source import SampleSource
    from calotype.transforms import Buckets, CaptionProgram, ImageProgram
    from calotype.types import Row, Sample, SampleKey

_HOMES = {
    "Buckets": "transforms",
    "CalotypeError": "errors",
    "CaptionProgram": "transforms",
    "EncodedDataset": "encodings.dataset",
    "FluxTransform": "models",
    "ImageProgram": "transforms",
    "Ledger": "ledger",
    "Loader": "loader",
    "Manifest": "manifest",
    "PixelsTransform": "models",
    "Row": "types",
    "SD15Transform": "models",
    "SD3Transform": "models",
    "SDXLTransform": "models",
    "Sample": "types",
    "SampleKey": "types",
    "SampleSource": "sample_source",
    "TextToImageDataset": "dataset",
    "build_dataset": "build",
    "build_loader": "build",
    "build_model_transform": "models",
    "encode_dataset": "engine.encode",
    "encoded_dataset": "encodings.build",
    "get_spec": "models",
    "list_specs": "models",
    "load_config": "config",
    "load_manifest": "manifest",
    "preview": "inspect.preview",
    "text_to_image_dataset": "builder",
}

__version__ = "0.1.0"
__all__ = [
    "Buckets",
    "CalotypeError",
    "CaptionProgram",
    "EncodedDataset",
    "FluxTransform",
    "ImageProgram",
    "Ledger",
    "Loader",
    "Manifest",
    "PixelsTransform",
    "Row",
    "SD3Transform",
    "SD15Transform",
    "SDXLTransform",
    "Sample",
    "SampleKey",
    "SampleSource",
    "TextToImageDataset",
    "build_dataset",
    "build_loader",
    "build_model_transform",
    "encode_dataset",
    "encoded_dataset",
    "get_spec",
    "list_specs",
    "load_config",
    "load_manifest",
    "preview",
    "text_to_image_dataset",
]


def __getattr__(name: str) -> Any:
    """Imports a public name when it is first used: `import calotype` alone loads no torch."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
