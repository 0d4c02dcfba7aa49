"""`app`: the commands of `calotype`, in the order of the work."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import lru_cache
from typing import Annotated, Any

import typer

from calotype.cli import (
    bench,
    cache,
    caption,
    check,
    config,
    convert,
    demo,
    distill,
    encode,
    info,
    init,
    models,
    preview,
    studio,
    train,
)
from calotype.cli.flags import Command, Commands
from calotype.core.quiet import quiet_libraries
from calotype.terminal import say

__all__ = ["app", "run"]

_BEGIN, _LOOK, _PREPARE, _TRAIN, _OTHER = "Begin", "Look at the data", "Prepare it", "Train", "Look after"

app = typer.Typer(name="calotype", cls=Commands, rich_markup_mode=None)
app.command("init", cls=Command, rich_help_panel=_BEGIN)(init.init)
app.command("demo", cls=Command, rich_help_panel=_BEGIN)(demo.demo)
app.command("models", cls=Command, rich_help_panel=_BEGIN)(models.models)
app.command("info", cls=Command, rich_help_panel=_LOOK)(info.info)
app.command("check", cls=Command, rich_help_panel=_LOOK)(check.check)
app.command("preview", cls=Command, rich_help_panel=_LOOK)(preview.preview)
app.command("studio", cls=Command, rich_help_panel=_LOOK)(studio.studio)
app.command("caption", cls=Command, rich_help_panel=_PREPARE)(caption.caption)
app.command("convert", cls=Command, rich_help_panel=_PREPARE)(convert.convert)
app.command("encode", cls=Command, rich_help_panel=_PREPARE)(encode.encode)
app.command("train", cls=Command, rich_help_panel=_TRAIN)(train.train)
app.command("bench", cls=Command, rich_help_panel=_TRAIN)(bench.bench)
app.command("distill", cls=Command, rich_help_panel=_TRAIN)(distill.distill)
app.add_typer(config.app, name="config", rich_help_panel=_OTHER)
app.add_typer(cache.app, name="cache", rich_help_panel=_OTHER)


def _show_version(asked: bool) -> None:
    if asked:
        from calotype import __version__

        say(f"calotype {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", help="Print the libraries' own messages and progress bars, too.")
    ] = False,
    traceback: Annotated[
        bool, typer.Option("--traceback", help="Print the Python traceback of a failure; say it in a bug report.")
    ] = False,
) -> None:
    """From a folder of images to training batches for text-to-image models.

    These flags may stand behind a command, too: calotype train photos.yaml --verbose
    """
    if not verbose:
        quiet_libraries()


@lru_cache
def _command() -> Any:
    return typer.main.get_command(app)


def run(arguments: Sequence[str]) -> int:
    """Run the command that the arguments name, or complete them for a shell; return the exit status."""
    command = _command()
    if "_CALOTYPE_COMPLETE" in os.environ:
        command.main(prog_name="calotype")  # prints what the shell offers, and exits
    try:
        with command.make_context("calotype", list(arguments)) as context:
            command.invoke(context)
    except typer.Exit as ended:
        return ended.exit_code
    return 0
