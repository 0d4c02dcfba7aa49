"""What the verbs share: their first arguments, and how the dataset is made of them."""

from __future__ import annotations

import json
import logging
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from calotype.loader import Loader

__all__ = ["Json", "Model", "Overrides", "Source", "Tokenizers", "emit", "make_loader"]

Source = Annotated[str, typer.Argument(help="A folder of pictures, a data file, or a YAML config.")]
Overrides = Annotated[
    list[str] | None, typer.Argument(help="key=value pairs, such as resolution=512 loader.batch_size=4.")
]
Model = Annotated[str | None, typer.Option("--model", help="The model it is for: flux.1-dev, sdxl, sd3.5-large, …")]
Tokenizers = Annotated[
    str | None, typer.Option("--tokenizers", help="Folder with that model's tokenizers, if not from the hub.")
]
Json = Annotated[bool, typer.Option("--json", help="End standard output with one line of JSON.")]


def make_loader(
    source: str,
    overrides: list[str] | None,
    *,
    model: str | None,
    tokenizers: str | None,
    include: tuple[str, ...] = (),
) -> Loader:
    """The loader that a config, or a bare folder or data file, describes.

    A model whose tokenizers can't be had still gives its sizes: then the batches hold pixels only, and standard error
    says what is missing and how to get it.
    """
    from calotype.config import build_loader, load_config
    from calotype.errors import MissingTokenizerError

    logging.basicConfig(format="%(message)s", level=logging.WARNING, stream=sys.stderr)
    given = [f"model={model}"] if model else []
    given += [f"tokenizers={tokenizers}"] if tokenizers else []
    config = load_config(source, [*given, *(overrides or [])])
    dataset = config.setdefault("dataset", {})
    dataset["include"] = sorted({*(dataset.get("include") or ()), *include})
    try:
        loader: Loader = build_loader(config)
    except MissingTokenizerError as error:
        print(f"{error}\nGoing on without them: batches hold pixels and no tokens.", file=sys.stderr)
        loader = build_loader(config | {"tokenizer": {"_component_": "calotype.PixelsTransform"}})
    return loader


def emit(document: Any) -> None:
    """One line of JSON on standard output."""
    print(json.dumps(document, ensure_ascii=False))
