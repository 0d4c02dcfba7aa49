"""`calotype train`: a LoRA or a full fine-tune from a config."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from calotype.cli.common import AnyModel, Json, Overrides, Source, read_config
from calotype.progress import is_first_rank
from calotype.terminal import emit, say
from calotype.train.interrupt import StopRequest, exit_status, note_interrupted

__all__ = ["interrupted", "train"]


def train(
    source: Source,
    overrides: Overrides = None,
    model: AnyModel = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue from the last checkpoint, if any.")] = False,
    changed_dataset: Annotated[
        bool,
        typer.Option("--changed-dataset", help="With --resume: continue though images or captions were changed."),
    ] = False,
    json: Json = False,
) -> None:
    """Train a LoRA, or the whole transformer. Several GPUs: torchrun --nproc-per-node 4 --no-python calotype train …"""
    try:
        with StopRequest.from_signals() as stop:
            from calotype import train
            from calotype.config.load import is_config_file
            from calotype.train.view import TrainView

            config = read_config(source, overrides, model=model, tokenizers=None, encodes=True)
            name = Path(source).stem if is_config_file(source) else None
            with TrainView(live=not json) as view:
                report = train.run(
                    config,
                    name=name,
                    resume=resume,
                    changed_dataset=changed_dataset,
                    stop=stop,
                    show=view.show,
                    step_done=view.step_done,
                    tell=view.tell,
                )
    except KeyboardInterrupt as error:
        raise interrupted(error) from None
    if not is_first_rank():
        return
    if json:
        emit(report.to_json())
    else:
        if report.ledger:
            counts = ", ".join(f"{kind} {count}" for kind, count in report.ledger.items())
            say(f"Ledger: {counts}; each is named in {report.ledger_file}")
        say(f"Done: {report.result}")


def interrupted(error: KeyboardInterrupt) -> typer.Exit:
    """The end of a command that a signal has ended, which says how to continue."""
    if is_first_rank():
        say(note_interrupted(error, sys.argv[1:]), error=True)
    return typer.Exit(exit_status(error))
