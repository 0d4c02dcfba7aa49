"""`calotype demo`: the main job on a dozen real photos, from a folder to training batches and a tiny LoRA."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from calotype.cli.common import Json, Tokenizers, make_loader, read_config
from calotype.cli.info import show
from calotype.cli.preview import describe
from calotype.terminal import emit, say, time_text

if TYPE_CHECKING:
    from calotype.train.report import TrainReport

__all__ = ["demo"]


def demo(
    folder: Annotated[Path, typer.Argument(help="Where to put the photos, the configs and what comes of them.")] = Path(
        "demo"
    ),
    tokenizers: Tokenizers = None,
    pipeline: Annotated[
        Path | None,
        typer.Option(help="A tiny FLUX.1 or SD3 pipeline's folder: train a LoRA of it too.", show_default=False),
    ] = None,
    json: Json = False,
) -> None:
    """Show the whole way on a dozen real photos: a page that shows the batches, and with a pipeline a LoRA."""
    from calotype.demo import write_demo
    from calotype.loader.summary import summarise
    from calotype.previews import preview

    file = write_demo(folder)
    config = read_config(str(file), None, model=None, tokenizers=tokenizers)
    page = folder / "preview.html"
    with make_loader(config) as loader:
        made = preview(loader, batches=len(loader))
        made.save(page)
        loader.load_state_dict({"epoch": 1})
        summary = summarise(loader, seconds=5.0)
    if not json:
        show(summary)
    report = _train(folder, pipeline, json=json) if pipeline is not None else None
    if json:
        document: dict[str, Any] = {"config": str(file), "preview": describe(made, page)} | summary.to_json()
        emit(document | ({"train": report.to_json()} if report is not None else {}))
        return
    say("", f"The config: {file}", f"Every sample of an epoch, and how it came about: open {page}")
    if report is not None:
        say(f"What the tiny, untrained model makes of a prompt after {report.steps} steps: open {report.samples[0]}")


def _train(folder: Path, pipeline: Path, *, json: bool) -> TrainReport:
    """Encodes the photos with the pipeline's frozen models, and trains a LoRA through the encodings."""
    from calotype import encodings, train
    from calotype.demo import write_lora

    tell: Callable[..., None] = (lambda *lines: None) if json else say
    lora = write_lora(folder, pipeline)
    shutil.rmtree(folder / "lora", ignore_errors=True)  # a demonstration always begins anew
    tell("", f"A LoRA on them, of a tiny pipeline with random weights: {lora}")
    config = read_config(str(lora), None, model=None, tokenizers=None)
    encoded = encodings.run(config)
    tell(f"encoded {encoded.encoded} records in {time_text(encoded.seconds)}, {encoded.reused} were there")
    report = train.run(config, show=tell, tell=tell)
    tell(f"loss {report.first_loss:.3f} at first, {report.last_loss:.3f} at the end; the LoRA: {report.result}")
    return report
