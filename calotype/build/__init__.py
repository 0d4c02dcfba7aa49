"""A config becomes objects: datasets, loaders, the job that encodes, what a training run reads."""

from calotype.build.dataset import build_dataset
from calotype.build.encodings import build_encode_job
from calotype.build.loader import build_loader
from calotype.build.training import TrainingData, build_training, open_training

__all__ = [
    "TrainingData",
    "build_dataset",
    "build_encode_job",
    "build_loader",
    "build_training",
    "open_training",
]
