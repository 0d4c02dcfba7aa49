"""`calotype config`: what a config comes to, and which keys there are."""

from __future__ import annotations

from typing import Annotated

import typer

from calotype.cli.common import Json, Overrides
from calotype.cli.flags import Command, Commands
from calotype.terminal import emit, log_to_stderr, say

__all__ = ["app"]

app = typer.Typer(cls=Commands, rich_markup_mode=None, help="Show what a config comes to, and which keys there are.")

_WIDTH = 80
"""Columns that every terminal has."""


@app.command("show", cls=Command)
def show(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="A YAML config, a folder of images, or a data file.")],
    overrides: Overrides = None,
    json: Json = False,
) -> None:
    """Print every value of a config and where it came from: a line of the file, the command line, or a default."""
    from json import dumps

    from calotype.config.origins import list_settings

    log_to_stderr()
    settings = list_settings(source, overrides or ())
    if json:
        emit([setting.to_json() for setting in settings])
        return
    lines = [
        (f"{setting.key}: {dumps(setting.value, ensure_ascii=False, default=str)}", setting.place)
        for setting in settings
    ]
    width = min(60, max(len(text) for text, _ in lines))
    say(*(f"{text:<{width}}  # {place}" for text, place in lines))


@app.command("keys", cls=Command)
def keys(
    section: Annotated[
        str | None,
        typer.Argument(metavar="[SECTION]", help="dataset, loader, encodings, train, distill; without it, the top."),
    ] = None,
    json: Json = False,
) -> None:
    """List the keys of a config, or of one section, with defaults and meanings."""
    from json import dumps
    from textwrap import wrap

    from calotype.config.reference import list_keys

    found = list_keys(section)
    if json:
        emit([key.to_json() for key in found])
        return
    for key in found:
        default = "" if key.default is None else f" = {dumps(key.default, ensure_ascii=False)}"
        about = f"{key.meaning} ({key.expected})" if key.expected else key.meaning
        about += f" Default: {key.derived}." if key.derived else ""
        say(f"{key.key}{default}", *(f"    {line}" for line in wrap(about, _WIDTH - 4)))
    if section is None:
        say("", "`calotype config keys train` lists the keys of a section")


@app.command("schema", cls=Command)
def schema() -> None:
    """Print the JSON Schema of a config, by which editors complete and check keys."""
    from json import dumps

    from calotype.config.reference import json_schema

    say(*dumps(json_schema(), indent=2, ensure_ascii=False).splitlines())
