"""`calotype demo`: the main job on a dozen real photos, from a folder to training batches and a tiny LoRA."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from calotype.cli.common import Json, Tokenizers, make_loader, read_config
from calotype.cli.info import show
from calotype.cli.preview import describe
from calotype.terminal import emit, say

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
        show(replace(summary, images_per_second=None))  # of a dozen images, it means nothing
    report = _train(folder, pipeline, json=json) if pipeline is not None else None
    if json:
        document: dict[str, Any] = {"config": str(file), "preview": describe(made, page)} | summary.to_json()
        emit(document | ({"train": report.to_json()} if report is not None else {}))
        return
    if report is not None:
        say("", f"The loss fell from {report.first_loss:.3f} to {report.last_loss:.3f}:", *_curve(report.losses))
        say(f"The LoRA: {report.result}")
    say("", f"The config, to change: {file}", f"Every sample of an epoch, and how it came about: open {page}")


def _train(folder: Path, pipeline: Path, *, json: bool) -> TrainReport:
    """Encodes the photos with the pipeline's frozen models, and trains a LoRA through the encodings."""
    from calotype import encodings, train
    from calotype.demo import write_lora
    from calotype.progress import track

    tell: Callable[..., None] = (lambda *lines: None) if json else say
    lora = write_lora(folder, pipeline)
    shutil.rmtree(folder / "lora", ignore_errors=True)  # a demonstration always begins anew
    tell("", f"A LoRA on them, of a tiny pipeline with random weights: {lora}")
    config = read_config(str(lora), None, model=None, tokenizers=None)
    encoded = encodings.run(config, track=track)
    tell(f"Encoded {encoded.encoded} images and captions, {encoded.reused} were there. Training …")
    with track("training", unit="steps") as show_steps:
        return train.run(config, step_done=show_steps)


def _curve(losses: Sequence[tuple[int, float]]) -> Iterator[str]:
    """Yield a line with a bar for each loss."""
    most = max(loss for _, loss in losses)
    for step, loss in losses:
        yield f"step {step:>3}  loss {loss:.4f}  {'█' * round(40 * loss / most)}"
