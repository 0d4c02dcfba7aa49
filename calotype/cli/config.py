"""`calotype config`: what a config comes to, and which keys there are."""

from __future__ import annotations

from typing import Annotated

import typer

from calotype.cli.common import Overrides
from calotype.terminal import emit, log_to_stderr, say

__all__ = ["app"]

app = typer.Typer(help="Show what a config comes to, and which keys there are.", no_args_is_help=True)


@app.command("show")
def show(
    source: Annotated[str, typer.Argument(help="A YAML config, a folder of images, or a data file.")],
    overrides: Overrides = None,
    json: Annotated[bool, typer.Option("--json", help="End standard output with one line of JSON.")] = False,
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


@app.command("schema")
def schema() -> None:
    """Print the JSON Schema of a config, by which editors complete and check keys."""
    from json import dumps

    from calotype.config.reference import json_schema

    say(*dumps(json_schema(), indent=2, ensure_ascii=False).splitlines())
