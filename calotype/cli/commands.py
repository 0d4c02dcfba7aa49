"""`app`: the commands of `calotype`, in the order of the work."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Annotated, Any, Final

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

_COMMANDS: Final[Mapping[str, Mapping[Callable[..., None], str]]] = {
    "Begin": {
        init.init: "Write a config for a folder of images.",
        demo.demo: "Show the whole way on a dozen real photos.",
        models.models: "List the models that every command knows by name.",
    },
    "Look at the data": {
        info.info: "Show what a dataset holds, and what its batches are.",
        check.check: "Look for everything that would spoil a training run.",
        preview.preview: "Write a page that shows the batches of the training run.",
        studio.studio: "Search, edit and reject samples in the browser.",
    },
    "Prepare it": {
        caption.caption: "Have a model write the captions that are missing.",
        convert.convert: "Write a dataset in another form, without loss.",
        encode.encode: "Run the frozen models once, and store their outputs.",
    },
    "Train": {
        train.train: "Train a LoRA, or the whole network.",
        bench.bench: "Measure which cache is worth it on this data and machine.",
        distill.distill: "Train a small captioner on the captions of a large one.",
    },
}
"""By the step of the work that they are for: each command, which is called as its function, and what it does."""

app = typer.Typer(name="calotype", cls=Commands, rich_markup_mode=None)
for _step, _of_step in _COMMANDS.items():
    for _function, _what in _of_step.items():
        app.command(_function.__name__, cls=Command, rich_help_panel=_step, short_help=_what)(_function)
app.add_typer(config.app, name="config", rich_help_panel="Look after")
app.add_typer(cache.app, name="cache", rich_help_panel="Look after")


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
    verbose: Annotated[bool, typer.Option("--verbose", help="Print what the libraries print, too.")] = False,
    traceback: Annotated[
        bool, typer.Option("--traceback", help="Print the traceback of a failure, for a bug report.")
    ] = False,
) -> None:
    """From a folder of images to training batches for text-to-image models.

    --verbose and --traceback may stand behind a command, too.
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
