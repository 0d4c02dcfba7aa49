"""What the tests of training share: runs of a few steps on a few photos with a tiny pipeline, in this process."""

from pathlib import Path

from encoding_helpers import make_folder
from safetensors.torch import load_file
from tiny_pipelines import tiny_pipeline

from calotype import train

TRAIN = {"max_steps": 6, "learning_rate": 0.01, "lora_rank": 4, "log_every": 1, "trackers": [], "checkpoint_every": 0}


def config(folder, *, model="flux.1-dev", dataset=None, encodings=None, loader=None, **train):
    """A whole config, as `load_config` gives it."""
    return {
        "model": str(tiny_pipeline(model)),
        "dataset": {"path": str(folder), "resolution": 64, **(dataset or {})},
        "encodings": {"store": str(folder.parent / f"store-{model}"), "dtype": "float32", **(encodings or {})}
        | ({"max_sequence_length": 32} if "max_sequence_length" not in (encodings or {}) else {}),
        "loader": {"batch_size": 2, "in_process": True, "threads": 1, "device": "cpu", **(loader or {})},
        "train": {k: v for k, v in TRAIN.items() if k != "lora_rank" or train.get("method") != "full"} | train,
    }


def run(folder, output, *, resume=False, show=lambda progress: None, tell=lambda text: None, **options):
    """Trains; gives the report."""
    made = config(folder, output_dir=str(output), **options)
    return train.run(made, resume=resume, show=show, tell=tell)


def checkpoints(output):
    return sorted(path.name for path in (Path(output) / "checkpoints").glob("*"))


def trained_weights(output, step):
    return load_file(Path(output) / "checkpoints" / f"step-{step:08d}" / "trained.safetensors")


__all__ = ["checkpoints", "config", "make_folder", "run", "trained_weights"]
