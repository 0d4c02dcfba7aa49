"""What the verbs share: their first arguments, and how the dataset is made of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from calotype.terminal import log_to_stderr, say

if TYPE_CHECKING:
    from calotype.config import Config
    from calotype.loader import Loader

__all__ = [
    "Address",
    "AnyModel",
    "Json",
    "Model",
    "Overrides",
    "Source",
    "Tokenizers",
    "make_loader",
    "read_config",
    "say_first",
]


def _complete_key(incomplete: str) -> list[str]:
    """Return the keys of a config that begin so: without their section, where that names one of them."""
    from calotype.config.options import find_options, list_options

    keys = list_options()
    names = keys if "." in incomplete else dict.fromkeys(key.rpartition(".")[2] for key in keys)
    return [
        f"{name}=" for name in names if name.startswith(incomplete) and (name in keys or len(find_options(name)) == 1)
    ]


def _complete_model(incomplete: str) -> list[str]:
    """Return the names of the models that begin so."""
    from calotype.models.registry import list_specs

    return [spec.name for spec in list_specs() if spec.name.startswith(incomplete)]


Source = Annotated[
    str, typer.Argument(metavar="SOURCE", help="A folder of images, a data file, or a YAML config.", show_default=False)
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="KEY=VALUE",
        help="Options of the config, such as resolution=512 batch_size=4; `calotype config keys` lists them.",
        show_default=False,
        autocompletion=_complete_key,
    ),
]
Model = Annotated[
    str | None,
    typer.Option(
        "--model", help="The model it is for: flux.1-dev, sdxl, sd3.5-large, …", autocompletion=_complete_model
    ),
]
AnyModel = Annotated[
    str | None,
    typer.Option(
        "--model",
        help="A model's name, its name on the hub, or a local pipeline folder.",
        autocompletion=_complete_model,
    ),
]
Tokenizers = Annotated[
    str | None, typer.Option("--tokenizers", help="Folder with that model's tokenizers, if not from the hub.")
]
Address = Annotated[
    str | None,
    typer.Option(
        "--address", help="Of the Ray cluster; by default $RAY_ADDRESS, else one is started.", show_default=False
    ),
]
Json = Annotated[bool, typer.Option("--json", help="End standard output with one line of JSON.")]


_NO_CAPTION = "training stops at images without a caption (calotype check names them); here they have an empty one"
_SHOWN = 10
"""Lines of a list that a person is shown; `--json` has all."""


def say_first(title: str, lines: Sequence[str]) -> None:
    """Print the first ten lines of a list, each after the title, and how many more there are."""
    before = f"{title}: " if title else ""
    for line in lines[:_SHOWN]:
        say(f"{before}{line}")
    if len(lines) > _SHOWN:
        say(f"{before}{len(lines) - _SHOWN:,} more; --json names them all")


def read_config(
    source: str,
    overrides: list[str] | None,
    *,
    model: str | None,
    tokenizers: str | None,
    encodes: bool = False,
) -> Config:
    """The config that the first arguments describe. From here on, warnings go to standard error.

    A command calls this before it imports anything heavy: a slip is answered at once.

    Raises:
        ConfigError: An option is wrong, no model has this name, or none is named for a command that encodes.
        MissingPathError: The dataset's path does not exist.
    """
    from calotype import config

    log_to_stderr()
    given = [f"model={model}"] if model else []
    given += [f"tokenizers={tokenizers}"] if tokenizers else []
    found = config.read_config(source, [*given, *(overrides or [])])
    if encodes:
        _ = found.encoding_section().known_model  # raises if there is none
    _check_models(found)
    _check_paths(found, source)
    return found


def _check_models(config: Config) -> None:
    """Refuse a model that is neither a known one, nor a folder, nor the name of a repository on the hub."""
    from calotype.models.registry import get_spec
    from calotype.models.tokenizer_files import is_hub_name

    inside = config.encodings.model if config.encodings is not None else None
    for model in (config.any_model, inside):
        if model and not Path(model).expanduser().is_dir() and not is_hub_name(model):
            get_spec(str(model))


def _check_paths(config: Config, source: str) -> None:
    """Refuse a path that does not exist, unless it may be the name of a dataset on the hub, which is looked up."""
    from glob import has_magic
    from importlib.util import find_spec

    from calotype.config.dataset import DatasetConfig
    from calotype.config.load import is_config_file
    from calotype.errors import MissingPathError
    from calotype.manifest.hub_lookup import look_up_dataset
    from calotype.manifest.paths import absolute, exists, similar_folder, suggestion
    from calotype.models.tokenizer_files import is_hub_name

    if not isinstance(config.dataset, DatasetConfig) or config.dataset.data_files is not None:
        return
    for path in config.dataset.paths or ():
        place = absolute(path)
        try:
            if has_magic(path) or "{" in path or "://" in path or exists(place):
                continue
        except OSError:  # the manifest's error says what is wrong with it
            continue
        beside = Path(source).expanduser().parent / path  # where somebody meant it who wrote it into the config
        if is_config_file(source) and exists(beside):
            raise MissingPathError(
                f"{path}: there is no such file or folder in {Path.cwd()}, from which the paths of a config start; "
                f"{beside} is there: run in {beside.parents[len(Path(path).parts) - 1]}, or write the whole path"
            )
        if not is_hub_name(path) and ("/" in path or place.suffix):
            raise MissingPathError(f"{path}: there is no such file or folder{suggestion(place)}")
        if (meant := similar_folder(path)) is not None:
            raise MissingPathError(f"{path}: there is no such file or folder; did you mean {meant!r}?")
        if find_spec("datasets") is None:
            continue  # its reader says what to install
        say(f"{path}: there is no such file or folder here; looking it up on the Hugging Face hub", error=True)
        look_up_dataset(path)


def make_loader(config: Config, *, loader: Mapping[str, Any] | None = None, images: bool = False) -> Loader:
    """The loader that a config describes; `loader` goes before the config's options.

    With `images` it is for looking at them: the loader of the images that the config's encodings are made of, and of
    those without a caption, too.

    A model whose tokenizers can't be had still gives its sizes: then the batches hold pixels only, and standard error
    says what is missing and how to get it.
    """
    from calotype.errors import MissingCaptionError, MissingTokenizerError
    from calotype.loader.build import build_loader

    if images:
        config = config.without_encodings()
    if loader:
        config = config.updated(loader={**config.loader_options(), **loader})
    while True:
        try:
            return build_loader(config)
        except MissingTokenizerError as error:
            say(error, "Continuing without them: batches hold pixels and no tokens.", error=True)
            config = config.without_tokens()
        except MissingCaptionError:
            if not images:
                raise
            say(f"note: {_NO_CAPTION}", error=True)
            config = config.with_dataset(missing_captions="empty")
