"""`calotype init`: a short config for a folder of images, to train as it stands."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from calotype.cli.common import Json
from calotype.core.output_files import write_output
from calotype.terminal import emit, json_line, say, size_text, visible

if TYPE_CHECKING:
    from calotype.manifest import Manifest
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
    from calotype.errors import ConfigError, MissingPathError
    from calotype.models.downloads import download_bytes
    from calotype.models.pipeline_folder import find_pipeline, which_model
    from calotype.models.registry import get_spec
    from calotype.train.networks import network_of

    source = Path(folder).expanduser()
    if not folder or not source.exists():
        raise MissingPathError(
            f"{folder or repr(folder)}: there is no such folder or data file (looked in {Path.cwd()})"
        )
    if not trigger.strip():
        raise ConfigError("--trigger: found nothing, expected a word that the model does not know yet")
    local = Path(model).expanduser().is_dir()
    if local:
        pipeline, index = find_pipeline(model, spec=None, variant=None)
        spec, _ = which_model(index, pipeline, asked_for=model, spec=None)
    else:
        spec = get_spec(model)
    network_of(spec)  # refuses what is not trained here
    file = output or Path(f"{source.resolve().stem}.yaml")
    if not is_config_file(file):
        raise ConfigError(f"-o: found {str(file)!r}, expected a name that ends in .yaml")
    if file.exists() and not force:
        raise ConfigError(f"{file}: is there already; --force writes over it, -o names another")

    from calotype.manifest import load_manifest
    from calotype.manifest.unused_captions import require_captions

    manifest = load_manifest(str(source), missing_captions="empty")
    require_captions(manifest)
    resolution = _resolution(manifest, spec)
    text = _CONFIG.format(
        model=spec.name,
        name=visible(source.resolve().name),
        file=shlex.quote(visible(file)),
        model_value=_quoted(Path(model).expanduser().absolute()) if local else model,
        path=_quoted(source.absolute()),
        resolution=f"{resolution:<8}",
        trigger=_quoted(trigger),
        output=_quoted(f"{file.stem}-lora"),
        prompt=_quoted(f"a photo of {trigger}"),
    )
    write_output(file, text)
    found = manifest.describe()
    if json:
        counts = {"images": found["rows"], "without_caption": found["without_caption"], "resolution": resolution}
        emit({"output": str(file), "model": spec.name, **counts})
        return
    images = "1 image" if found["rows"] == 1 else f"{found['rows']:,} images"
    say(f"Wrote {file}: a LoRA of {spec.name} on {images} of {source}, at {resolution} pixels")
    if resolution < spec.resolution:
        say(f"At the {spec.resolution} pixels of {spec.name} more than half of the images would be enlarged")
    if missing := found["without_caption"]:
        count = f"{missing:,} have" if missing > 1 else "1 has"
        command = _caption_command(folder, source, trigger)
        advice, lines = (" To write captions:", [f"  {command}"]) if command else ("", [])
        say(f"{count} no caption; the trigger alone is trained with them.{advice}", *lines)
    if not local:
        size = download_bytes(spec, network=True)
        name = spec.hub[0] if model.lower() == spec.name else model
        much = "" if size is None else f" ({size_text(size)})"
        say(f"Training downloads the model once{much}, unless it is here already; where it is gated,")
        say(f"  accept its terms on https://huggingface.co/{name} and run `hf auth login`")
    command = shlex.quote(str(file))
    say("Look at it, then train:", *(f"  calotype {verb} {command}" for verb in ("check", "preview", "train")))


def _caption_command(folder: str, source: Path, trigger: str) -> str | None:
    """The command that writes captions; None where those of this source can't be written in place."""
    from calotype.editing.open import open_captions
    from calotype.errors import EditError

    try:
        open_captions(str(source))
    except EditError:
        return None
    return shlex.join(["calotype", "caption", folder, "--preset", "short", "--trigger", trigger])


def _resolution(manifest: Manifest, spec: ModelSpec) -> int:
    """Return the model's own, or the next smaller common one that half of the images fill without being enlarged."""
    import numpy as np

    from calotype.data.sizing import usual_buckets
    from calotype.images import ImageReader, scan_sizes
    from calotype.progress import track
    from calotype.transforms.buckets import Buckets

    sizes = manifest.sizes()  # (N, 2), 0 where the data file has none
    unknown = np.flatnonzero((sizes <= 0).any(axis=1))
    if len(unknown):
        with track("reading image sizes") as progress:
            sizes[unknown], _ = scan_sizes(manifest.refs(unknown), ImageReader(), progress=progress)
    sizes = sizes[(sizes > 0).all(axis=1)]
    candidates = [spec.resolution, *(side for side in _COMMON if side < spec.resolution)]
    for resolution in candidates:
        buckets = Buckets(**usual_buckets(resolution, spec))
        if 2 * int((buckets.upscale(sizes, buckets.assign(sizes)) > 1).sum()) <= len(sizes):
            break
    return resolution


def _quoted(value: str | Path) -> str:
    """As YAML takes any text: JSON's strings are YAML's."""
    return json_line(str(value))
