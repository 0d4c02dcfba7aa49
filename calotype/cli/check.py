"""`calotype check`: one report on a dataset, before any GPU work."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from calotype.cli.common import Json, Model, Overrides, Source, Tokenizers, read_config
from calotype.errors import ConfigError
from calotype.terminal import console, emit, say

if TYPE_CHECKING:
    from calotype.check.report import Report

__all__ = ["check"]


def check(
    source: Source,
    overrides: Overrides = None,
    model: Model = None,
    tokenizers: Tokenizers = None,
    deep: Annotated[
        bool | None,
        typer.Option(
            "--deep/--headers",
            help="Decode every image: finds damage inside, equal pixels, near duplicates. Small sets are by default.",
            show_default=False,
        ),
    ] = None,
    ranks: Annotated[
        int | None, typer.Option(min=1, help="Plan the batches for so many ranks.", show_default=False)
    ] = None,
    fix_list: Annotated[
        Path | None, typer.Option("--fix-list", help="Write the files to fix here, a line each (.jsonl: as JSON).")
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Check again although nothing has changed.")] = False,
    json: Json = False,
) -> None:
    """Look for everything that would spoil a training run. Exit status 0: clean, 1: problems, 2: wrong use."""
    from calotype import check
    from calotype.check.fix_list import write_fix_list
    from calotype.progress import track

    config = read_config(source, overrides, model=model, tokenizers=tokenizers)
    report = check.run(config, deep=deep, world_size=ranks, fresh=fresh, track=track)
    if not json:
        _show(report)
    if fix_list is not None:
        try:
            written = write_fix_list(report, fix_list)
        except ConfigError as error:
            raise ConfigError(f"--fix-list: {error}") from error
        if not json:
            say(f"{written} lines to fix: {fix_list}")
    if json:
        emit(report.to_json())
    raise typer.Exit(0 if report.clean else 1)


def _show(report: Report) -> None:
    from calotype.check.show import lines, print_report

    if sys.stdout.isatty():
        print_report(report, console())
    else:
        for line in lines(report):
            say(line)
