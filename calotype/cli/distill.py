"""`calotype distill`: train a small captioner on the captions of a large one, or of a dataset."""

from __future__ import annotations

from typing import Annotated

import typer

from calotype.cli.common import Json, Overrides, Source, read_config
from calotype.cli.train import interrupted
from calotype.progress import is_first_rank, track
from calotype.terminal import emit, say
from calotype.train.interrupt import StopRequest

__all__ = ["distill"]


def distill(
    source: Source,
    overrides: Overrides = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue from the last checkpoint, if any.")] = False,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Ask the teacher once more where it has failed before.")
    ] = False,
    json: Json = False,
) -> None:
    """Train a small captioner on its teacher's captions; score it on held-out images before and after."""
    try:
        with StopRequest.from_signals() as stop:
            from calotype import distill
            from calotype.train.view import TrainView

            config = read_config(source, overrides, model=None, tokenizers=None)
            if config.distill is None:
                config = config.updated(distill={})  # raises: a student must be named
            with TrainView(live=not json) as view:
                report = distill.run(
                    config,
                    resume=resume,
                    retry_failed=retry_failed,
                    stop=stop,
                    show=view.show,
                    step_done=view.step_done,
                    tell=view.tell,
                    track=track,
                )
    except KeyboardInterrupt as error:
        raise interrupted(error) from None
    if not is_first_rank():
        return
    if json:
        emit(report.to_json())
    else:
        say(f"Done: {report}")
