"""`calotype preview`: a contact sheet of a batch as training will see it."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from calotype.cli.common import Json, Model, Overrides, Source, Tokenizers, emit, make_loader

if TYPE_CHECKING:
    from calotype.loader import Loader

__all__ = ["preview", "write_sheet"]


def preview(
    source: Source,
    overrides: Overrides = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="The PNG file to write.")] = Path("preview.png"),
    model: Model = None,
    tokenizers: Tokenizers = None,
    epoch: Annotated[int, typer.Option(min=0, help="The epoch to look at.")] = 0,
    step: Annotated[int, typer.Option(min=0, help="The batch of that epoch.")] = 0,
    json: Json = False,
) -> None:
    """Draw one training batch, pictures and captions, as a PNG."""
    with make_loader(source, overrides, model=model, tokenizers=tokenizers, include=("id", "text")) as loader:
        ids = write_sheet(loader, output, epoch=epoch, step=step)
    if json:
        emit({"output": str(output), "ids": ids})
    else:
        print(f"Open {output}")


def write_sheet(loader: Loader, output: Path, *, epoch: int = 0, step: int = 0) -> list[str]:
    """Writes the sheet of one batch; returns the ids of its pictures."""
    from calotype.errors import ConfigError
    from calotype.inspect import contact_sheet

    loader.load_state_dict({"epoch": epoch})
    if step >= len(loader):
        raise ConfigError(f"step: found {step}, expected less than {len(loader)}, the batches of epoch {epoch}")
    batch = next(islice(loader, step, None))
    height, width = batch["img"].shape[2:]
    title = f"epoch {epoch}, batch {step} of {len(loader)}: {width} x {height} px, seed {loader.plan.seed}"
    output.parent.mkdir(parents=True, exist_ok=True)
    contact_sheet(batch, title=title).save(output)
    return list(batch["id"])
