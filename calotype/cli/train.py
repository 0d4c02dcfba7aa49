"""`calotype train`: a LoRA or a full fine-tune from a config."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from calotype.cli.common import Json, Overrides, Source, emit, read_config

if TYPE_CHECKING:
    from calotype.recipes.report import Progress

__all__ = ["show", "train"]


def train(
    source: Source,
    overrides: Overrides = None,
    model: Annotated[
        str | None, typer.Option(help="A model's name, its name on the hub, or a local pipeline folder.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint, if there is one.")] = False,
    json: Json = False,
) -> None:
    """Train a LoRA, or the whole transformer. Several GPUs: torchrun --nproc-per-node 4 --no-python calotype train …"""
    from calotype.train import train_config

    config = read_config(source, overrides, model=model, tokenizers=None)
    try:
        report = train_config(config, resume=resume, show=show, tell=tell)
    except KeyboardInterrupt:
        print("Interrupted. The same command with --resume goes on from the last checkpoint.", file=sys.stderr)
        raise typer.Exit(130) from None
    if json:
        emit(report.to_json())
    else:
        tell(f"Done: {report.result}")


def show(progress: Progress) -> None:
    """One line of progress."""
    tell(str(progress))


def tell(text: str) -> None:
    """A line at once, also where standard output is a file."""
    print(text, flush=True)
