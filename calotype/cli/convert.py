"""`calotype convert`: a dataset in another format, resumable, and verified against its source."""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from calotype.cli.common import Json, Source, read_config, say_first
from calotype.terminal import about, emit, say, size_text, time_text

if TYPE_CHECKING:
    from calotype.config import Config
    from calotype.convert import ConvertPlan, ConvertReport, VerifyReport

__all__ = ["convert"]

_UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}


class To(StrEnum):
    """What `--to` takes."""

    imagefolder = "imagefolder"
    jsonl = "jsonl"
    csv = "csv"
    parquet = "parquet"
    webdataset = "webdataset"
    lmdb = "lmdb"
    kohya = "kohya"
    hf = "hf"


class Images(StrEnum):
    """What `--images` takes."""

    copy = "copy"
    link = "link"
    embed = "embed"
    refer = "refer"


def convert(
    source: Source,
    destination: Annotated[
        Path, typer.Argument(metavar="DESTINATION", help="A new folder; or one data file (.jsonl, .csv, .parquet).")
    ],
    to: Annotated[To, typer.Option("--to", help="The form of the result.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="KEY=VALUE", help="How the source is read: columns.caption=long caption_lines=many …"),
    ] = None,
    images: Annotated[
        Images | None,
        typer.Option(
            help="Copy the images' files, link to them, put them inside the data files, or only refer to them.",
            show_default="what suits the form",
        ),
    ] = None,
    bake_trigger: Annotated[
        str | None, typer.Option("--bake-trigger", help="Write this word into every caption.", show_default=False)
    ] = None,
    template: Annotated[
        str | None,
        typer.Option(help="Where it stands, such as 'a photo of {trigger}, {caption}'.", show_default=False),
    ] = None,
    shard_size: Annotated[
        str, typer.Option("--shard-size", help="Bytes of images in one shard or file: 500MB, 1GB, …")
    ] = "500MB",
    lossy: Annotated[bool, typer.Option("--lossy", help="Write although captions must change for this form.")] = False,
    skip: Annotated[bool, typer.Option("--skip", help="Leave out images that can't be read, and name them.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be written, and write nothing.")] = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="Compare an existing result with its source, byte for byte.")
    ] = False,
    json: Json = False,
) -> None:
    """Write a dataset in another form. Exit status 0: all there, 1: something is missing or differs, 2: wrong use."""
    config, size = _config(source, overrides), _size(shard_size)

    from calotype.convert import open_source, plan_conversion, run_conversion, verify_conversion
    from calotype.progress import track

    manifest, reader = open_source(config, destination, to=to.value)
    with track("looking through the rows", unit="rows") as show:
        plan = plan_conversion(
            manifest,
            destination,
            to=to.value,
            images=images.value if images else None,
            trigger=bake_trigger,
            template=template,
            shard_size=size,
            progress=show,
        )
    if dry_run:
        _dry_run(plan, json=json)
        refused = not lossy and any(found.level == "error" for found in plan.findings)
        raise typer.Exit(1 if refused else 0)
    if verify:
        with track("verifying") as show:
            checked = verify_conversion(plan, reader=reader, progress=show)
        emit(checked.to_json()) if json else _show_differences(checked)
        raise typer.Exit(1 if checked.differences else 0)
    if not json:
        _say(plan)
    try:
        with track("converting") as show:
            report = run_conversion(
                plan, reader=reader, lossy=lossy, on_error="skip" if skip else "raise", progress=show
            )
    except KeyboardInterrupt:
        say("Interrupted. What was written is kept; run the same command again to go on.", error=True)
        raise typer.Exit(130) from None
    emit(report.to_json()) if json else _show(report)
    raise typer.Exit(1 if report.failed else 0)


def _config(source: str, overrides: list[str] | None) -> Config:
    """The dataset's config. A file may have any options; those of the command line must have a meaning here."""
    from calotype.config.dataset import MANIFEST_OPTIONS
    from calotype.config.options import find_options
    from calotype.errors import unknown_key

    known = {*MANIFEST_OPTIONS, "path", "source", "missing_captions", "on_error", "downloads", "fetch"}
    options = []
    for override in overrides or ():
        option = override.removeprefix("dataset.")
        name = option.partition("=")[0].partition(".")[0]
        if name not in known:
            found = [key.removeprefix("dataset.") for key in find_options(name, ("dataset",))]
            inner = [key for key in found if key.partition(".")[0] in known]
            if len(inner) != 1:
                raise unknown_key("convert", name, known)
            option = inner[0] + option.removeprefix(name)
        options.append(f"dataset.{option}")
    return read_config(source, options, model=None, tokenizers=None)


def _size(text: str) -> int:
    from calotype.errors import ConfigError

    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?B?)\s*", text, re.IGNORECASE)
    unit = match[2].upper() if match else ""
    unit = "" if unit == "B" else unit + "B" if unit and not unit.endswith("B") else unit
    if match is None:
        raise ConfigError(f"--shard-size: found {text!r}; expected a number of bytes, such as 500MB or 1GB")
    return int(float(match[1]) * _UNITS[unit])


def _say(plan: ConvertPlan) -> None:
    for found in plan.findings:
        say(f"{found.level.capitalize()}: {found.text}", error=True)


def _dry_run(plan: ConvertPlan, *, json: bool) -> None:
    from dataclasses import asdict

    if json:
        emit(
            {
                "destination": str(plan.destination),
                "form": plan.form.name,
                "images": plan.target.images,
                "rows": len(plan),
                "bytes": plan.nbytes,
                "unknown_sizes": plan.unknown_sizes,
                "findings": [asdict(found) for found in plan.findings],
            }
        )
        return
    unknown = f" and {plan.unknown_sizes:,} of unknown size" if plan.unknown_sizes else ""
    say(f"{len(plan):,} images to {plan.form.name} ({plan.target.images}): {plan.destination}")
    say(f"{size_text(plan.nbytes)} of images{unknown} would be written")
    _say(plan)


def _show(report: ConvertReport) -> None:
    before = f", {report.resumed:,} of them by an earlier run" if report.resumed else ""
    say(
        f"{report.rows:,} images ({size_text(report.bytes)} written{before}) in {time_text(report.seconds)}: "
        f"{report.destination}"
    )
    say_first("Left out", [about(name, reason) for name, reason in report.failed.items()])


def _show_differences(report: VerifyReport) -> None:
    say_first("", [f"{found.id}: {found.what}: {found.reason}" for found in report.differences])
    state = f"{len(report.differences):,} differences" if report.differences else "all as in the source"
    say(f"{report.rows:,} rows, {size_text(report.bytes)} of images: {state}")
