"""`calotype preview`: what training will see, as a page or a contact sheet."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from calotype.cli.common import Json, Model, Overrides, Source, Tokenizers, make_loader, read_config
from calotype.cli.info import Encoded, check_encoded
from calotype.terminal import emit, say

if TYPE_CHECKING:
    from calotype.config import Config
    from calotype.previews import Preview

__all__ = ["describe", "preview"]

_BATCHES, _SAMPLES = 4, 16
"""Minimum numbers of batches and samples that are shown by default."""


def preview(
    source: Source,
    overrides: Overrides = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The file to write: .html is the page, .png a contact sheet.")
    ] = Path("preview.html"),
    model: Model = None,
    tokenizers: Tokenizers = None,
    batches: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="How many, from the beginning of the epoch; by default 4, or as many as hold 16 samples.",
            show_default=False,
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="The loader's; defaults to the config's.")] = None,
    epoch: Annotated[int, typer.Option(min=0, help="The epoch to look at.")] = 0,
    draws: Annotated[int, typer.Option(min=0, help="Later epochs to show of each image.")] = 3,
    autoencoder: Annotated[
        str | None,
        typer.Option(help="Show the round trip through it: a diffusers folder, one with vae/, or a hub name."),
    ] = None,
    encoded: Encoded = False,
    json: Json = False,
) -> None:
    """Show the batches that training will get, and how each sample came about."""
    from calotype.previews.suffix import check_suffix

    check_suffix(output)
    config = read_config(source, overrides, model=model, tokenizers=tokenizers)
    if encoded:
        check_encoded(config)

    from calotype.config.inputs import check_outside
    from calotype.previews import preview as look
    from calotype.progress import track

    if encoded:
        autoencoder = autoencoder or _pipeline(config)
    if output.suffix.lower() != ".html":
        check_outside(config, output.parent, option="-o", writes="the contact sheet")
    if config.encodings is not None and (config.encodings.image_variants or config.encodings.caption_variants):
        say(
            "note: the page samples crops, colors and captions anew each epoch; training reads the stored variants",
            error=True,
        )
    # The same bits without the start of another process, and with the pixels where they can be looked at.
    options: dict[str, Any] = {"in_process": True, "device": "cpu", "device_cache": False}
    if seed is not None:
        options["seed"] = seed
    with ExitStack() as stack:
        loader = stack.enter_context(make_loader(config, loader=options, images=True))
        encodings = stack.enter_context(make_loader(config, loader=options)) if encoded else None
        progress = stack.enter_context(track("drawing samples"))
        made = look(
            loader,
            epoch=epoch,
            batches=batches or max(_BATCHES, -(-_SAMPLES // loader.plan.batch_size)),
            draws=draws,
            autoencoder=autoencoder,
            encoded=encodings,
            progress=progress,
        )
    made.save(output)
    if json:
        emit(describe(made, output))
    else:
        say(summary_line(made), f"Open {output}")


def _pipeline(config: Config) -> str:
    """Return the folder of the pipeline that encodes: its autoencoder shows what the latents preserve."""
    from calotype.models.pipeline_folder import find_pipeline

    options = config.encoding_section()
    return str(find_pipeline(options.known_model, spec=options.spec, variant=options.weights)[0])


def summary_line(made: Preview) -> str:
    """Return what to look at first, in a line: `16 samples: 3 enlarged, 1 caption cut`."""
    from calotype.previews.badges import find_badges, verdict
    from calotype.previews.wording import count

    there, absent = verdict(find_badges(made.batches))
    found = [badge.counted(number) for badge, number in there] or absent
    return f"{count(sum(len(batch.samples) for batch in made.batches), 'sample')}: {', '.join(found)}"


def describe(made: Preview, output: Path) -> dict[str, Any]:
    """A saved preview as plain values."""
    from calotype.previews.badges import find_badges

    return {
        "output": str(output),
        "bytes": output.stat().st_size,
        "batches": [
            {
                "epoch": batch.epoch,
                "step": batch.step,
                "seed": batch.seed,
                "samples": [
                    {
                        "id": sample.id,
                        "text": sample.caption.text,
                        "stands_in_for": sample.stands_in_for,
                        "repeatable": sample.repeatable,
                        "psnr": sample.round_trip.psnr if sample.round_trip is not None else None,
                        "badges": [badge.key for badge in badges],
                    }
                    for sample, badges in zip(batch.samples, found, strict=True)
                ],
            }
            for batch, found in zip(made.batches, find_badges(made.batches), strict=True)
        ],
    }
