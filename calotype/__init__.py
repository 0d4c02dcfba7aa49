"""calotype: from a folder of images to training batches for text-to-image models."""

from __future__ import annotations

from typing import TYPE_CHECKING

from calotype.core.former_modules import install as install_former_modules
from calotype.core.lazy import exports

if TYPE_CHECKING:
    from calotype.config import load_config
    from calotype.data.build import build_dataset
    from calotype.data.builder import text_to_image_dataset
    from calotype.data.collate import collate
    from calotype.data.dataset import TextToImageDataset
    from calotype.data.sample_source import SampleSource
    from calotype.encodings.build import encoded_dataset
    from calotype.encodings.dataset import EncodedDataset
    from calotype.encodings.encode import encode_dataset
    from calotype.errors import CalotypeError
    from calotype.ledger import Ledger
    from calotype.loader import BatchSampler, Loader
    from calotype.loader.build import build_loader
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
    from calotype.previews import preview
    from calotype.transforms import Buckets, CaptionTransform, ImageTransform
    from calotype.types import Row, Sample, SampleKey

__version__ = "0.1.0"
__all__ = [
    "BatchSampler",
    "Buckets",
    "CalotypeError",
    "CaptionTransform",
    "EncodedDataset",
    "FluxTransform",
    "ImageTransform",
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
    "collate",
    "encode_dataset",
    "encoded_dataset",
    "get_spec",
    "list_specs",
    "load_config",
    "load_manifest",
    "preview",
    "text_to_image_dataset",
]

_MODULES = {
    "BatchSampler": ".loader",
    "Buckets": ".transforms",
    "CalotypeError": ".errors",
    "CaptionTransform": ".transforms",
    "EncodedDataset": ".encodings.dataset",
    "FluxTransform": ".models",
    "ImageTransform": ".transforms",
    "Ledger": ".ledger",
    "Loader": ".loader",
    "Manifest": ".manifest",
    "PixelsTransform": ".models",
    "Row": ".types",
    "SD15Transform": ".models",
    "SD3Transform": ".models",
    "SDXLTransform": ".models",
    "Sample": ".types",
    "SampleKey": ".types",
    "SampleSource": ".data.sample_source",
    "TextToImageDataset": ".data.dataset",
    "build_dataset": ".data.build",
    "build_loader": ".loader.build",
    "build_model_transform": ".models",
    "collate": ".data.collate",
    "encode_dataset": ".encodings.encode",
    "encoded_dataset": ".encodings.build",
    "get_spec": ".models",
    "list_specs": ".models",
    "load_config": ".config",
    "load_manifest": ".manifest",
    "preview": ".previews",
    "text_to_image_dataset": ".data.builder",
}

__getattr__ = exports(
    __name__, _MODULES, former={"CaptionProgram": "CaptionTransform", "ImageProgram": "ImageTransform"}
)
install_former_modules()


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})
