"""`calotype demo`: the main job on a dozen real photos, from a folder to training batches."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from calotype.cli.common import Json, Tokenizers, emit, make_loader
from calotype.cli.info import show
from calotype.cli.preview import write_sheet

__all__ = ["demo"]


def demo(
    folder: Annotated[Path, typer.Argument(help="Where to put the photos, the config and the sheet.")] = Path("demo"),
    tokenizers: Tokenizers = None,
    json: Json = False,
) -> None:
    """Show the whole way on a dozen real photos, and write a contact sheet of one batch."""
    from calotype.demo import write_demo
    from calotype.inspect import summarise

    config = write_demo(folder)
    sheet = folder / "batch.png"
    with make_loader(str(config), None, model=None, tokenizers=tokenizers or None, include=("id", "text")) as loader:
        epoch = loader.plan.epoch(0)
        fullest = max(range(len(epoch)), key=lambda step: len(epoch[step]))
        ids = write_sheet(loader, sheet, step=fullest)
        loader.load_state_dict({"epoch": 1})
        summary = summarise(loader, seconds=5.0)
    if json:
        emit({"config": str(config), "sheet": str(sheet), "ids": ids} | summary.to_json())
        return
    show(summary)
    print(f"\nThe config: {config}\nOne augmented batch, with its final captions: open {sheet}")
