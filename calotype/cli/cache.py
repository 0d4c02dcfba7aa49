"""`calotype cache ls | verify | prune | export`: looking after a store of encodings."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from calotype.cli.common import Json
from calotype.cli.flags import Command, Commands
from calotype.core.cache_folder import cache_folder
from calotype.terminal import emit, say, size_text

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from calotype.encodings.store import EncodingStore

__all__ = ["app"]

app = typer.Typer(cls=Commands, rich_markup_mode=None, help="Look after a store of encodings.")

Store = Annotated[
    Path | None,
    typer.Argument(help="The store's folder; by default the one that all datasets share.", show_default=False),
]
StoreOption = Annotated[Path | None, typer.Option("--store", help="The same, as encode calls it.", show_default=False)]


@app.command("ls", cls=Command)
def ls(store: Store = None, store_option: StoreOption = None, json: Json = False) -> None:
    """List what is in a store: records, bytes, shards."""
    store = _place(store, store_option)

    from calotype.encodings.store import EncodingStore
    from calotype.encodings.store.summary import summarise_store

    summary = summarise_store(EncodingStore(store))
    if json:
        emit(summary.to_json())
        return
    for kind, of_kind in summary.kinds.items():
        say(f"{kind:12} {of_kind.records:>12,} records  {size_text(of_kind.bytes):>10}")
    say(f"{'all':12} {summary.records:>12,} records  {size_text(summary.bytes):>10}")
    opened = f", {summary.open_shards} of them open" if summary.open_shards else ""
    say(f"{summary.shards} shards{opened}, {size_text(summary.disk_bytes)} on disk")
    if summary.dropped:
        say(f"{summary.dropped} records dropped: 'calotype cache prune {store}' takes them out")
    for what in summary.damaged.values():
        say(what)
    for name in summary.set_aside:
        say(f"{name}: set aside, as nothing could be had from it; nobody reads it, delete it when you like")


@app.command("verify", cls=Command)
def verify(
    store: Store = None,
    store_option: StoreOption = None,
    drop: Annotated[
        bool, typer.Option("--drop", help="Mark damaged records, so that encoding again makes just those anew.")
    ] = False,
    json: Json = False,
) -> None:
    """Compare every byte with its checksum, and look for NaN and inf. Exit status 0: whole, 1: damaged."""
    store = _place(store, store_option)

    from calotype.encodings.store import EncodingStore
    from calotype.encodings.store.verification import verify_store
    from calotype.progress import track

    opened = EncodingStore(store)
    with track("verifying", unit="bytes") as show:
        found = verify_store(opened, progress=show)
    marked = found.by_shard() if drop else {}
    opened.drop_from(marked)
    dropped = sum(len(keys) for keys in marked.values())
    if json:
        damage = [{"shard": d.shard, "key": d.key.hex() if d.key else None, "reason": d.reason} for d in found.damage]
        emit({"records": found.records, "bytes": found.bytes, "damaged": damage, "dropped": dropped})
    else:
        for item in found.damage:
            say(item.reason)
        state = f"{len(found.damage)} damaged" if found.damage else "every byte is as it was written"
        say(f"{found.records:,} records, {size_text(found.bytes)}: {state}")
        if dropped:
            say(f"{dropped} records dropped: encode again to make them anew")
        elif found.by_shard():
            say("--drop marks the damaged records, and encoding again makes just those anew")
    raise typer.Exit(1 if found.damage else 0)


@app.command("prune", cls=Command)
def prune(
    store: Store = None,
    store_option: StoreOption = None,
    keep: Annotated[
        Path | None,
        typer.Option("--keep", help="A file with the keys that are needed, 32 hex digits a line.", show_default=False),
    ] = None,
    needed_by: Annotated[
        list[str] | None,
        typer.Option(
            "--for", help="A config whose records are needed (a folder or data file with --model); may come often."
        ),
    ] = None,
    model: Annotated[str | None, typer.Option(help="The model of folders and data files after --for.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only report what would be removed.")] = False,
    json: Json = False,
) -> None:
    """Remove what no dataset needs: all but what --for and --keep name; else dropped records and duplicates."""
    store = _place(store, store_option)

    import numpy as np

    from calotype.encodings.store import EncodingStore
    from calotype.encodings.store.pruning import prune_store
    from calotype.progress import track

    keys = None if keep is None else _read_keys(keep)
    if needed_by:
        needed = _needed(needed_by, model, store)
        keys = needed if keys is None else np.concatenate([keys, needed])
    with track("pruning", unit="shards") as show:
        pruned = prune_store(EncodingStore(store), keys, dry_run=dry_run, progress=show)
    if json:
        emit(asdict(pruned) | {"dry_run": dry_run})
        return
    for what in pruned.damaged:
        say(what)
    for name in pruned.set_aside:
        say(f"{name}: its header can't be read; {'would be ' if dry_run else ''}set aside under this name")
    verb = "would go" if dry_run else "are gone"
    say(f"{pruned.records:,} records ({size_text(pruned.bytes)}) {verb}, out of {pruned.shards} shards")


@app.command("export", cls=Command)
def export(
    store: Annotated[Path, typer.Argument(help="The store's folder.")],
    folder: Annotated[Path, typer.Argument(help="Where to: another store, made if it is not there.")],
    keys: Annotated[
        Path | None,
        typer.Option("--keys", help="A file with the keys to take, 32 hex digits a line.", show_default=False),
    ] = None,
    kind: Annotated[
        str | None, typer.Option("--kind", help="Take one kind: text, image, …", show_default=False)
    ] = None,
    unpacked: Annotated[bool, typer.Option("--unpacked", help="One safetensors file a record, not a store.")] = False,
    json: Json = False,
) -> None:
    """Copy records, all or some, each verified. Exit status 1: some are damaged or missing, and were left out."""
    store = _place(store, None)

    from calotype.encodings.store import EncodingStore
    from calotype.encodings.store.export import export_store, unpack_store
    from calotype.progress import track

    opened = EncodingStore(store)
    rows, missing = _choose(opened, keys, kind)
    with track("exporting", unit="records") as show:
        copy = unpack_store if unpacked else export_store
        copied = copy(opened, folder, rows, progress=show)
    if json:
        emit(asdict(copied) | {"missing": missing})
    else:
        say(f"{copied.records:,} records ({size_text(copied.bytes)}) copied to {folder}")
    for what in copied.damaged:
        say(what, error=True)
    if missing:
        say(f"{missing} of the keys in {keys} are not in the store", error=True)
    raise typer.Exit(1 if copied.damaged or missing else 0)


def _place(argument: Path | None, option: Path | None) -> Path:
    """The store's folder.

    Raises:
        ConfigError: Two stores are named.
        MissingPathError: There is none at the place that is named.
        StoreError: There is none at the default place.
    """
    from calotype.errors import ConfigError, MissingPathError, StoreError

    if argument is not None and option is not None:
        raise ConfigError(f"--store: found {option}, and {argument} as well; name one store")
    given = argument or option
    place = given or cache_folder("encodings")
    if not (place / "format.json").exists():
        if given is not None:
            raise MissingPathError(f"{given}: there is no store of encodings here (no format.json)")
        raise StoreError(f"{place}: there is no store of encodings yet; `calotype encode` makes it")
    return place


def _needed(sources: list[str], model: str | None, store: Path) -> NDArray[np.uint8]:
    """The keys of all that some configs need of this store."""
    from calotype.cli.encode import fill_in
    from calotype.encodings.build import build_encode_job
    from calotype.encodings.keys import scaling_key
    from calotype.encodings.store.layout import as_keys
    from calotype.progress import track

    keys: set[bytes] = set()
    for source in sources:
        job = build_encode_job(fill_in(source, None, model=model, store=store), create=False)
        keys |= job.plan(track)[1].needed | {scaling_key(job.models.picture_fingerprint)}
    return as_keys(sorted(keys))


def _choose(store: EncodingStore, keys: Path | None, kind: str | None) -> tuple[NDArray[np.int64], int]:
    """The rows to take, and how many of the keys are not there."""
    import numpy as np

    rows = store.rows(kind)
    if keys is None:
        return rows, 0
    found = store.find(_read_keys(keys))
    return rows[np.isin(rows, found)], int((found < 0).sum())


def _read_keys(path: Path) -> NDArray[np.uint8]:
    """Raises `ConfigError` for a file that is not there or has other lines in it."""
    from calotype.encodings.store.layout import KEY_BYTES, as_keys
    from calotype.errors import ConfigError

    try:
        lines = path.read_text(encoding="ascii").split()
        keys = [bytes.fromhex(line) for line in lines]
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: can't be read as keys, {2 * KEY_BYTES} hex digits a line: {error}") from None
    if wrong := [line for line, key in zip(lines, keys, strict=True) if len(key) != KEY_BYTES]:
        raise ConfigError(f"{path}: found {wrong[0]!r}, expected {2 * KEY_BYTES} hex digits a line")
    return as_keys(keys)
