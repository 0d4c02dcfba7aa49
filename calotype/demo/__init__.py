"""The data of the demo: photos of the scikit-image package, with captions written for them.

`captions.jsonl` lists the photos with two captions each. They are copied from the installed package, not downloaded;
their authors and licences are in scikit-image's `data/README.txt`.
"""

from __future__ import annotations

import importlib.resources
import importlib.util
import json
import shutil
from pathlib import Path

from calotype.core.output_files import write_output
from calotype.errors import MissingDependencyError
from calotype.terminal import json_line, visible

__all__ = ["write_demo", "write_lora"]

_CONFIG = """\
# The data of a training. Try: calotype preview {name} resolution=256
model: flux.1-dev            # determines image sizes and caption lengths
dataset:
  path: photos               # images, and a metadata.jsonl with two captions each
  resolution: 512            # about 512 × 512 pixels, in buckets of similar aspect ratios
  buckets: {{max_upscale: 2.0}}
  img_transform:
    horizontal_flip: 0.5
    color_jitter: {{brightness: 0.1, saturation: 0.1}}
  caption_transform:
    trigger: calotypist      # the word for this collection
    template: "{{trigger}} photo, {{caption}}"
    shuffle_parts: 0.3
    drop: 0.05               # drops whole captions, for classifier-free guidance
loader:
  batch_size: 4
  seed: 7
"""


_LORA = """\
# A LoRA of a tiny pipeline on the same photos: `calotype encode {name}`, then `calotype train {name}`
model: {pipeline}
dataset:
  path: {photos}
  resolution: 192
  img_transform: {{horizontal_flip: 0.5, color_jitter: {{brightness: 0.1, saturation: 0.1}}}}
  caption_transform: {{trigger: calotypist, template: "{{trigger}} photo, {{caption}}", drop: 0.05}}
encodings:
  store: {store}
  dtype: float32
  max_sequence_length: 64
  image_variants: 2          # colour jitter is continuous: this many samples of each image are stored
loader: {{batch_size: 4, seed: 7, in_process: true}}
train:
  output_dir: {output}
  max_steps: 120
  learning_rate: 5.0e-3      # far higher than for a real model
  log_every: 20
  checkpoint_every: 0
  gradient_checkpointing: false
  sample_prompts: ["calotypist photo, a cat"]
  sample_every: 120          # once, at the end
  sample_steps: 8
"""


def write_lora(folder: Path, pipeline: Path) -> Path:
    """Write `folder/lora.yaml`, which trains on the data of `write_demo`, and return its path.

    Args:
        folder: That of the demo.
        pipeline: A local pipeline folder, tiny enough for the CPU.
    """
    config = folder / "lora.yaml"
    places = {"photos": folder / "photos", "store": folder / "encodings", "output": folder / "lora"}
    values = {name: json_line(str(place)) for name, place in {**places, "pipeline": pipeline.absolute()}.items()}
    write_output(config, _LORA.format(name=visible(config), **values))
    return config


def write_demo(folder: Path) -> Path:
    """Write `folder/photos` and `folder/demo.yaml`, replacing existing ones, and return the path of the config."""
    if importlib.util.find_spec("skimage") is None:
        raise MissingDependencyError("scikit-image", extra="demo", purpose="for the photos of the demo")
    photos = folder / "photos"
    photos.mkdir(parents=True, exist_ok=True)
    captions = importlib.resources.files(__name__).joinpath("captions.jsonl").read_text(encoding="utf-8")
    source = importlib.resources.files("skimage").joinpath("data")
    for line in captions.splitlines():
        name = json.loads(line)["file_name"]
        with importlib.resources.as_file(source.joinpath(name)) as photo:
            shutil.copyfile(photo, photos / name)
    write_output(photos / "metadata.jsonl", captions)
    config = folder / "demo.yaml"
    text = _CONFIG.format(name=visible(config))
    write_output(config, text.replace("path: photos", f"path: {json_line(str(photos))}"))
    return config
