"""`calotype studio`: a page in the browser to look through a dataset, fix captions and reject images."""

from __future__ import annotations

import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from calotype.cli.common import Model, Overrides, Source, Tokenizers, read_config
from calotype.terminal import say

__all__ = ["studio"]


def studio(
    source: Source,
    overrides: Overrides = None,
    model: Model = None,
    tokenizers: Tokenizers = None,
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Of 127.0.0.1, to serve at; by default any that is free.")
    ] = 0,
    open_browser: Annotated[
        bool, typer.Option("--open/--no-open", help="Open the page in the browser.", show_default=False)
    ] = True,
) -> None:
    """Review a dataset in the browser: find, edit, caption, reject; nothing leaves this machine."""
    from calotype.config.load import is_config_file
    from calotype.errors import MissingDependencyError

    config = read_config(source, overrides, model=model, tokenizers=tokenizers)
    try:
        from calotype.studio.server import serve
    except ModuleNotFoundError as error:
        if error.name not in ("starlette", "uvicorn"):
            raise
        raise MissingDependencyError(error.name, extra="studio", purpose="for the review page") from error
    from calotype.studio.studio import Studio

    file = Path(source) if is_config_file(source) else None
    made = Studio(config, file=file)

    def ready(address: str) -> None:
        say(
            f"{len(made.rows)} images of {made.source.name}. Open {address}",
            "That address lets one browser in, once. Ctrl-C ends it.",
        )
        if open_browser:
            webbrowser.open(address)

    serve(made, port=port, ready=ready, again=lambda address: say(f"For another browser, once: {address}"))
