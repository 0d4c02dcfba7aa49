"""`calotype caption`: gives captions to images that have none."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping
from enum import Enum
from itertools import groupby
from typing import TYPE_CHECKING, Annotated, Any

import typer

from calotype.cli.common import Address, Json, Overrides, Source, read_config, say_first
from calotype.cli.encode import Engine
from calotype.terminal import about, emit, say, time_text

if TYPE_CHECKING:
    from calotype.captioning.report import CaptionReport
    from calotype.check.report import Finding

__all__ = ["caption"]

_LINTS = 3
"""Findings about captions that a person is shown, of each kind."""


class Mode(Enum):
    """What `--mode` takes."""

    fill = "fill"
    add = "add"
    replace = "replace"


def caption(
    source: Source,
    overrides: Overrides = None,
    backend: Annotated[
        str | None,
        typer.Option(help="http, transformers, or another package's; http if there is a --url.", show_default=False),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="The server's name for it, a folder, a name on the hub, or auto.", show_default=False),
    ] = None,
    url: Annotated[
        str | None, typer.Option(help="Of an OpenAI-compatible server: http://localhost:8000/v1.", show_default=False)
    ] = None,
    preset: Annotated[
        list[str] | None,
        typer.Option(
            help="descriptive, short, tags, style, subject, or a file; may be given again.", show_default=False
        ),
    ] = None,
    n: Annotated[
        int | None, typer.Option("--n", min=1, help="Captions an image; one of each preset.", show_default=False)
    ] = None,
    mode: Annotated[Mode, typer.Option(help="Only where there is none, after those there, or instead.")] = Mode.fill,
    trigger: Annotated[
        str | None, typer.Option(help="The word you will train with; for the look at the captions.", show_default=False)
    ] = None,
    class_word: Annotated[
        str | None, typer.Option("--class-word", help="What the subject is: man, dog, teapot.", show_default=False)
    ] = None,
    sidecars: Annotated[bool, typer.Option("--sidecars", help="Also write .txt files beside the images.")] = False,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Ask again for what failed before.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace captions that a person wrote, too.")] = False,
    seed: Annotated[int, typer.Option(help="Another seed draws other captions.")] = 0,
    temperature: Annotated[
        float | None, typer.Option(help="0 always takes the likeliest word.", show_default=False)
    ] = None,
    max_tokens: Annotated[
        int | None, typer.Option("--max-tokens", min=1, help="Of a caption.", show_default=False)
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(
            "--option",
            "-o",
            help="Of the backend: concurrency=32, batch_size=4, device=cuda:1, …; may be given again.",
            show_default=False,
        ),
    ] = None,
    dry_run: Annotated[
        int | None,
        typer.Option(
            "--dry-run", min=1, help="Show captions of so many images, and write nothing.", show_default=False
        ),
    ] = None,
    engine: Annotated[Engine, typer.Option(help="Caption in this process, or on a Ray cluster.")] = Engine.local,
    address: Address = None,
    json: Json = False,
) -> None:
    """Have a model describe images that have no caption. Exit status 0: all done, 1: some failed, 2: wrong use."""
    config = read_config(source, overrides, model=None, tokenizers=None)

    from calotype import captioning
    from calotype.captioning.command import caption_lints
    from calotype.progress import track

    flags = {"model": model, "url": url, "temperature": temperature, "max_tokens": max_tokens}
    flags = {name: value for name, value in flags.items() if value is not None}
    options = _pairs(option, flags) | flags
    backend = backend or ("http" if "url" in options else "transformers")
    if backend == "transformers" and options.get("model", "auto") == "auto" and engine is Engine.local:
        options["model"] = _picked(options.get("device"))
    try:
        report = captioning.run(
            config,
            backend=backend,
            presets=preset or ["descriptive"],
            n=n,
            mode=mode.value,
            class_word=class_word,
            seed=seed,
            force=force,
            retry_failed=retry_failed,
            sidecars=sidecars,
            dry_run=dry_run,
            engine=engine.value,
            address=address,
            track=track,
            **options,
        )
    except KeyboardInterrupt:
        say("Interrupted. What was answered is kept; run the same command again to go on.", error=True)
        raise typer.Exit(130) from None
    lints = () if dry_run is not None else caption_lints(config, trigger=trigger)
    if json:
        emit(report.to_json() | {"lints": [_plain(lint) for lint in lints]})
    else:
        _show(report, lints, dry=dry_run is not None)
    raise typer.Exit(1 if report.failed else 0)


def _pairs(option: list[str] | None, flags: Collection[str]) -> dict[str, Any]:
    """Return `key=value` pairs as options of the backend; a dotted key is an option within one."""
    from calotype.captioning.command import run
    from calotype.config.overrides import read_pairs
    from calotype.errors import ConfigError

    own = inspect.signature(run).parameters
    found = set(flags)
    for pair in option or ():
        key, equals, _ = pair.partition("=")
        if key in found:
            raise ConfigError(f"--option: {key} is given twice, by {pair!r} and before; leave one of them out")
        found.add(key)
        if not equals or key in own:
            raise ConfigError(f"--option: key=value was expected, with an option of the backend, found {pair!r}")
    return read_pairs(option or ())


def _picked(device: str | None) -> str:
    """The model that `auto` stands for; says why, before it is downloaded."""
    from calotype.captioning.captioners import pick_captioner

    picked = pick_captioner(device)
    say(f"auto: {picked.why}", error=True)
    return picked.captioner.hub


def _plain(lint: Finding) -> Mapping[str, Any]:
    from dataclasses import asdict

    return asdict(lint)


def _show(report: CaptionReport, lints: tuple[Finding, ...], *, dry: bool) -> None:
    for example in report.examples:
        say(example.id)
        for text in example.captions:
            say(f"    {text}")
    if dry:
        say(f"Nothing was written. {report.model} answered {report.asked} times, {report.failed} failed.")
    elif not report.asked and not report.written and not report.failed:
        say(f"Nothing to caption: {report.images:,} images{_kept(report)}")
    else:
        say(
            f"Captioned {report.written:,} of {report.images:,} images in {time_text(report.seconds)} with "
            f"{report.model}: {report.asked:,} answers, {report.reused:,} from earlier runs, {report.failed:,} failed"
            f"{_kept(report)}"
        )
    if report.backup is not None:
        say(f"As it was before: {report.backup}")
    again = " (in an earlier run; --retry-failed asks again)"
    say_first("Failed", [about(one.id, one.reason) + (again if one.again else "") for one in report.failures])
    for _, group in groupby(lints, key=lambda lint: lint.kind):
        found = list(group)
        for lint in found[:_LINTS]:
            where = f"{lint.where}: " if lint.where else ""
            say(f"{lint.level}: {where}{lint.detail} ({lint.advice})")
        if len(found) > _LINTS:
            say(f"{found[0].level}: {len(found) - _LINTS:,} more like it; `calotype check` names them all")


def _kept(report: CaptionReport) -> str:
    return f"; {report.kept:,} with captions by a person were kept (--force replaces them)" if report.kept else ""
