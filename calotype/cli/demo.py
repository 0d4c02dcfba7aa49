"""`calotype demo`: the main job on a dozen real photos, from a folder to training batches."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from calotype.cli.common import Json, Tokenizers, emit, make_loader
from calotype.cli.info import show
from calotype.cli.preview import describe

__all__ = ["demo"]


def demo(
    folder: Annotated[Path, typer.Argument(help="Where to put the photos, the config and the preview.")] = Path("demo"),
    tokenizers: Tokenizers = None,
    json: Json = False,
) -> None:
    """Show the whole way on a dozen real photos, and write a page that shows the batches."""
    from calotype.demo import write_demo
    from calotype.inspect import summarise
    from calotype.inspect.preview import preview

    config = write_demo(folder)
    page = folder / "preview.html"
    with make_loader(str(config), None, model=None, tokenizers=tokenizers or None) as loader:
        made = preview(loader, batches=len(loader))
        made.save(page)
        loader.load_state_dict({"epoch": 1})
        summary = summarise(loader, seconds=5.0)
    if json:
        emit({"config": str(config), "preview": describe(made, page)} | summary.to_json())
        return
    show(summary)
    print(f"\nThe config: {config}\nEvery sample of an epoch, and how it came about: open {page}")
