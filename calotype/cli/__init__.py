"""The command `calotype`: one file for each verb, thin: parse, call, print.

Nothing heavy is imported before a verb runs, so that `calotype --help` answers at once.
"""

from __future__ import annotations

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
    preview,
    studio,
    train,
)
from calotype.cli.flags import Command
from calotype.terminal import encode_all, say

__all__ = ["app", "main"]

app = typer.Typer(
    name="calotype",
    help="From a folder of images to training batches for text-to-image models.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("info", cls=Command)(info.info)
app.command("caption", cls=Command)(caption.caption)
app.command("check", cls=Command)(check.check)
app.command("preview", cls=Command)(preview.preview)
app.add_typer(cache.app, name="cache")
app.add_typer(config.app, name="config")
app.command("convert", cls=Command)(convert.convert)
app.command("encode", cls=Command)(encode.encode)
app.command("init", cls=Command)(init.init)
app.command("studio", cls=Command)(studio.studio)
app.command("train", cls=Command)(train.train)
app.command("distill", cls=Command)(distill.distill)
app.command("bench", cls=Command)(bench.bench)
app.command("demo", cls=Command)(demo.demo)


def main() -> None:
    """Entry point: an error of ours is a sentence, not a traceback. Exit status 1 for bad data, 2 for wrong use."""
    from calotype.core.quiet import quiet_libraries
    from calotype.errors import CalotypeError, ConfigError, MissingPathError

    encode_all()
    quiet_libraries()
    try:
        app()
    except (ConfigError, MissingPathError) as error:
        say(f"calotype: {error}", error=True)
        raise SystemExit(2) from None
    except CalotypeError as error:
        say(f"calotype: {error}", error=True)
        raise SystemExit(1) from None
    except OSError as error:  # a disk that is full, a folder that may not be read
        where = f"{error.filename}: " if error.filename else ""
        say(f"calotype: {where}{error.strerror or error}", error=True)
        raise SystemExit(1) from None
