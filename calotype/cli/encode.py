"""`calotype encode`: run the frozen models over a dataset once, and store their outputs."""

from __future__ import annotations

import tempfile
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from calotype.cli.common import Address, AnyModel, Json, Overrides, Source, read_config, say_first
from calotype.terminal import about, emit, say, size_text, time_text

if TYPE_CHECKING:
    from calotype.config import Config
    from calotype.encodings.report import EncodeReport

__all__ = ["best_device", "encode", "fill_in"]


class Engine(StrEnum):
    """What `--engine` takes."""

    local = "local"
    ray = "ray"


def encode(
    source: Source,
    overrides: Overrides = None,
    model: AnyModel = None,
    store: Annotated[
        Path | None, typer.Option(help="Folder of the encodings; all datasets may share one.", show_default=False)
    ] = None,
    device: Annotated[str | None, typer.Option(help="Where the models run; a GPU if there is one.")] = None,
    batch_size: Annotated[
        int | None, typer.Option("--batch-size", min=1, help="Images at once; by default by their size.")
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Images decoded at once.")] = None,
    engine: Annotated[Engine, typer.Option(help="Encode in this process, or on a Ray cluster.")] = Engine.local,
    address: Address = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Report what would be done, and do nothing.")] = False,
    json: Json = False,
) -> None:
    """Run the frozen text encoders and the autoencoder, and store their outputs; only missing records are made."""
    from calotype import encodings
    from calotype.progress import track
    from calotype.train.interrupt import StopRequest, exit_status

    config = fill_in(source, overrides, model=model, store=store)
    if dry_run:
        _dry_run(config, device or best_device(), json=json)
        return
    try:
        with StopRequest.from_signals():  # SIGTERM and SIGHUP end as Ctrl-C does: the open shards are finished
            report = encodings.run(
                config,
                device=device,
                engine=engine.value,
                address=address,
                batch_size=batch_size,
                threads=threads,
                track=track,
            )
    except KeyboardInterrupt as error:
        say("Interrupted. What was encoded is kept; to continue, run the same command again.", error=True)
        raise typer.Exit(exit_status(error)) from None
    if json:
        emit(report.to_json())
    else:
        _show(report, _store(config))
    raise typer.Exit(1 if report.failed else 0)


def fill_in(source: str, overrides: list[str] | None, *, model: str | None, store: Path | None) -> Config:
    """The config that the first arguments describe, with its `encodings` filled in."""
    from calotype.core.cache_folder import cache_folder

    config = read_config(source, overrides, model=model, tokenizers=None, encodes=True)
    given = config.encodings.given() if config.encodings is not None else {}
    chosen = {"store": str(store)} if store else {}
    return config.updated(encodings={"store": str(cache_folder("encodings"))} | given | chosen)


def best_device() -> str:
    """`cuda` where there is one."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _store(config: Config) -> Path:
    assert config.encodings is not None and config.encodings.store is not None  # `fill_in` has set it
    return Path(config.encodings.store)


def _dry_run(config: Config, device: str, *, json: bool) -> None:
    from calotype.encodings.build import build_encode_job
    from calotype.encodings.estimate import free_bytes
    from calotype.progress import track

    store = _store(config).expanduser()
    with tempfile.TemporaryDirectory() as empty:
        if not store.exists():
            config = config.updated(encodings=config.encoding_section().updated(store=empty, model=None))
        job = build_encode_job(config, device=device, create=not store.exists())
        _, work = job.plan(track)
        expected = job.expect(work)
    if json:
        emit(expected.to_json() | {"store": str(store), "free": free_bytes(store)})
        return
    say(f"To encode  {expected.pictures:,} images and {expected.texts:,} texts; {expected.reused:,} records are there")
    parts = f"images {size_text(expected.picture_bytes)}, texts {size_text(expected.text_bytes)}"
    say(f"Disk       {size_text(expected.bytes)} ({parts}), {size_text(free_bytes(store))} are free: {store}")
    say(f"Time       about {time_text(expected.seconds)} on this {expected.device}, right within a factor of 3")


def _show(report: EncodeReport, store: Path) -> None:
    if not report.encoded and not report.failed:
        say(f"Nothing to encode: all {report.reused:,} records are in {store}")
        return
    say(
        f"Encoded {report.encoded:,} records ({size_text(report.bytes)}) in {time_text(report.seconds)}, "
        f"{report.reused:,} were there, {report.failed:,} failed. Store: {store}"
    )
    for title, entries in (("Failed", report.failures), ("Noted", report.notes)):
        say_first(title, [about(entry.id, entry.reason) for entry in entries])
