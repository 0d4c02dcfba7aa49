"""`calotype info`: what was found, its buckets, what a batch holds, how fast batches come."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from calotype.cli.common import Json, Model, Overrides, Source, Tokenizers, make_loader, read_config
from calotype.terminal import console, emit, styled

if TYPE_CHECKING:
    from calotype.loader.summary import Summary

__all__ = ["info", "show"]


def info(
    source: Source,
    overrides: Overrides = None,
    model: Model = None,
    tokenizers: Tokenizers = None,
    seconds: Annotated[float, typer.Option(help="How long to measure the rate, at most.")] = 10.0,
    json: Json = False,
) -> None:
    """Show what a dataset holds and what its training batches are."""
    from calotype.loader.summary import summarise

    config = read_config(source, overrides, model=model, tokenizers=tokenizers)
    with make_loader(config) as loader:
        summary = summarise(loader, seconds=seconds)
    if json:
        emit(summary.to_json())
    else:
        show(summary)


def show(summary: Summary) -> None:
    """Print a summary."""
    from rich.table import Table

    screen = console()
    found = ", ".join(f"{key.replace('_', ' ')}: {_plain(key, value)}" for key, value in summary.found.items() if value)
    screen.print(styled(("Found", "bold"), f"  {found}"))
    if summary.buckets:
        sizes = "  ".join(f"{b.width}×{b.height}: {b.images}" for b in summary.buckets)
        screen.print(styled(("Buckets", "bold"), f" (width×height: images)  {sizes}"))
    table = Table("key", "type", "shape", "range", box=None, header_style="bold", padding=(0, 2, 0, 0))
    for entry in summary.batch:
        span = "" if entry.low is None else f"{entry.low:g} … {entry.high:g}"
        table.add_row(entry.key, entry.kind, str(entry.shape), span)
    screen.print(styled(("Batches", "bold"), f"  {summary.batches} an epoch, a full one:"))
    screen.print(table)
    if summary.images_per_second is not None:
        screen.print(styled(("Speed", "bold"), f"  {summary.images_per_second:.0f} images/s"))
    if summary.ledger:
        notes = ", ".join(f"{kind}: {count}" for kind, count in sorted(summary.ledger.items()))
        screen.print(styled(("Ledger", "bold"), f"  {notes}"))


def _plain(key: str, value: Any) -> str:
    return " + ".join(f"{count} {kind}" for kind, count in value.items()) if key == "left_out" else str(value)
