"""`calotype info`: what was found, its buckets, what a batch holds, how fast batches come."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from calotype.cli.common import Json, Model, Overrides, Source, Tokenizers, make_loader, read_config
from calotype.errors import ConfigError
from calotype.terminal import console, emit, styled

if TYPE_CHECKING:
    from calotype.config import Config
    from calotype.loader.summary import Entry, Summary

__all__ = ["Encoded", "check_encoded", "info", "show"]

Encoded = Annotated[
    bool, typer.Option("--encoded", help="Show the encoded batches of a config with `encodings`.", show_default=False)
]

_BUCKETS: Final = 24
"""Maximum buckets that are listed, the fullest first; `--json` has all."""
_MEASURED: Final = 4
"""Minimum images in a measured throughput: of fewer the figure means nothing."""
_APART: Final = frozenset({"notes", "root", "shown_per_epoch", "left_out"})
"""Facts that are not part of the first line."""


def info(
    source: Source,
    overrides: Overrides = None,
    model: Model = None,
    tokenizers: Tokenizers = None,
    encoded: Encoded = False,
    seconds: Annotated[float, typer.Option(help="How long to measure the rate, at most.")] = 10.0,
    json: Json = False,
) -> None:
    """Show what a dataset holds and what its training batches are."""
    config = read_config(source, overrides, model=model, tokenizers=tokenizers)
    if encoded:
        check_encoded(config)

    from calotype.loader.summary import summarise

    if encoded:
        with make_loader(config) as loader:
            summary = summarise(loader, seconds=seconds)
    else:
        with _like_a_loader_process(), make_loader(config, loader=_here(config), images=True) as loader:
            summary = summarise(loader, seconds=seconds)
    if json:
        emit(summary.to_json())
        return
    show(summary)
    if config.encodings is not None and not encoded:
        console().print(styled("Training reads the encodings of these images: --encoded shows those batches."))


def check_encoded(config: Config) -> None:
    """Check that a config has encodings to show.

    Raises:
        ConfigError: It has none, so `--encoded` would have no effect.
    """
    if config.encodings is None:
        raise ConfigError(
            "--encoded: the config has no `encodings`, so training reads the images themselves; leave it out, or set "
            "encodings.on_the_fly=true"
        )


def _here(config: Config) -> dict[str, Any]:
    """Return the options for a loader in this process: a process of its own takes seconds to start."""
    from calotype.config.component import Component

    return {} if isinstance(config.loader, Component) else {"in_process": True}


@contextmanager
def _like_a_loader_process() -> Iterator[None]:
    """Let torch run single-threaded in each thread of the loader, as in its process, for the same throughput."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def show(summary: Summary) -> None:
    """Print a summary."""
    from rich.table import Table

    screen = console()
    for name, text in _facts(summary.found):
        screen.print(styled((name, "bold"), f"  {text}"))
    if summary.buckets:
        fullest = sorted(summary.buckets, key=lambda bucket: -bucket.images)
        sizes = "  ".join(f"{b.width}×{b.height}: {b.images:,}" for b in fullest[:_BUCKETS])
        more = f"  and {len(fullest) - _BUCKETS:,} more" if len(fullest) > _BUCKETS else ""
        screen.print(styled(("Buckets", "bold"), f" (width×height: images)  {sizes}{more}"))
    table = Table("key", "type", "shape", "range", box=None, header_style="bold", padding=(0, 2, 0, 0))
    for entry in summary.batch:
        table.add_row(styled(entry.key), entry.kind, str(entry.shape), _span(entry))
    screen.print(styled(("Batches", "bold"), f"  {summary.batches:,} an epoch, a full one:"))
    screen.print(table)
    if summary.images_per_second is not None and summary.measured_images >= _MEASURED:
        rate = summary.images_per_second
        screen.print(styled(("Speed", "bold"), f"  {rate:,.0f} images/s" if rate >= 10 else f"  {rate:.2g} images/s"))
    if summary.ledger:
        screen.print(styled(("Ledger", "bold"), f"  {_counts(summary.ledger)}"))


def _facts(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the lines about the data: counts, where it is, what was left out, and the notes, one each."""
    facts = {key: value for key, value in found.items() if value and key not in _APART}
    if found.get("shown_per_epoch", found.get("rows")) != found.get("rows"):
        facts["shown_per_epoch"] = f"{found['shown_per_epoch']:,.6g}"
    yield "Found", ", ".join(f"{key.replace('_', ' ')}: {_plain(value)}" for key, value in facts.items())
    if found.get("root"):
        yield "In", str(found["root"])
    if found.get("left_out"):
        yield "Left out", _counts(found["left_out"])
    for note in found.get("notes", ()):
        yield "Note", str(note)


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return " + ".join(f"{_plain(item)} {key}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return " + ".join(map(_plain, value))
    return f"{value:,}" if isinstance(value, int) else str(value)


def _counts(kinds: Mapping[str, int]) -> str:
    return ", ".join(f"{kind.replace('_', ' ')}: {count:,}" for kind, count in sorted(kinds.items()))


def _span(entry: Entry) -> str:
    """Format the range of a tensor: whole numbers in full, others with three digits."""
    if entry.low is None or entry.high is None:
        return ""
    digits = ".0f" if "int" in entry.kind else ".3g"
    return f"{entry.low:{digits}} … {entry.high:{digits}}"
