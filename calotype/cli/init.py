"""`calotype init`: a short config for a folder of images, to train as it stands."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from calotype.cli.common import Json
from calotype.core.output_files import write_output
from calotype.terminal import emit, json_line, say, visible

if TYPE_CHECKING:
    from calotype.models.spec import ModelSpec

__all__ = ["init"]

_COMMON = (768, 512, 256)

_CONFIG = """\
# A LoRA of {model} for {name}. Look first, then train:
#   calotype check {file}
#   calotype preview {file}
#   calotype train {file}                    # --resume continues after an interruption
# Any value can be given there too: calotype train {file} max_steps=2000 resolution=512

model: {model_value}
dataset:
  path: {path}
  resolution: {resolution}     # about this number squared of pixels, in buckets near each image's own shape
  # img_transform: {{horizontal_flip: 0.5}}    # where left and right don't matter: no faces, no writing
  caption_transform:
    trigger: {trigger}     # goes before each caption; what you will write in prompts
    drop: 0.05             # so many captions are left out, which keeps guidance working
  # validation: 0.1        # hold a tenth of the images out, and watch the loss on them
encodings:
  on_the_fly: true         # encode what is missing in the first epoch, and store it for the next ones and other runs
loader:
  batch_size: 1
train:
  output_dir: {output}
  max_steps: 1000
  learning_rate: 1.0e-4
  lora_rank: 16
  gradient_checkpointing: true   # false is faster, and takes far more memory
  sample_prompts: [{prompt}]
  sample_every: 250
"""


def init(
    folder: Annotated[str, typer.Argument(help="A folder of images, or a data file.")],
    model: Annotated[
        str, typer.Option(help="A model's name (flux.1-dev), its name on the hub, or a local pipeline folder.")
    ],
    trigger: Annotated[str, typer.Option(help="The word that will stand for what the images show.")],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="The file to write; by default the folder's name.", show_default=False),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Write over a file that is there.")] = False,
    json: Json = False,
) -> None:
    """Write a short config for these images, which `calotype train` takes as it stands."""
    from calotype.config.load import is_config_file
    from calotype.encodings.frozen import FrozenModels
    from calotype.errors import ConfigError, MissingPathError
    from calotype.models.registry import get_spec
    from calotype.train.networks import network_of

    source = Path(folder).expanduser()
    if not source.exists():
        raise MissingPathError(f"{folder}: there is no such folder or data file (looked in {Path.cwd()})")
    if not trigger.strip():
        raise ConfigError("--trigger: found nothing, expected a word that the model does not know yet")
    local = Path(model).expanduser().is_dir()
    spec = FrozenModels(model).spec if local else get_spec(model)
    network_of(spec)  # refuses what is not trained here
    file = output or Path(f"{source.resolve().stem}.yaml")
    if not is_config_file(file):
        raise ConfigError(f"-o: found {str(file)!r}, expected a name that ends in .yaml")
    if file.exists() and not force:
        raise ConfigError(f"{file}: is there already; --force writes over it, -o names another")
    text = _CONFIG.format(
        model=spec.name,
        name=visible(source.resolve().name),
        file=visible(file),
        model_value=_quoted(Path(model).expanduser().absolute()) if local else model,
        path=_quoted(source.absolute()),
        resolution=f"{_resolution(source, spec, trigger):<8}",
        trigger=_quoted(trigger),
        output=_quoted(f"{file.stem}-lora"),
        prompt=_quoted(f"a photo of {trigger}"),
    )
    write_output(file, text)
    if json:
        emit({"output": str(file), "model": spec.name})
    else:
        say(f"Wrote {file}. Train it: calotype train {file}")


def _resolution(source: Path, spec: ModelSpec, trigger: str) -> int:
    """Return the model's own, or the next smaller common one that half of the images fill without being enlarged."""
    from calotype.data.builder import text_to_image_dataset
    from calotype.models import PixelsTransform

    candidates = [spec.resolution, *(side for side in _COMMON if side < spec.resolution)]
    for resolution in candidates:
        dataset = text_to_image_dataset(
            PixelsTransform(),
            path=str(source),
            model=spec.name,
            resolution=resolution,
            caption_transform={"trigger": trigger},
        )
        _, notes = dataset.scan()
        if 2 * sum(note.kind == "upscaled" for note in notes) <= len(dataset):
            break
    return resolution


def _quoted(value: str | Path) -> str:
    """As YAML takes any text: JSON's strings are YAML's."""
    return json_line(str(value))
