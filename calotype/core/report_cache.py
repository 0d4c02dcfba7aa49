"""Whole reports, remembered: what was found out of files that have not changed is not found out a second time.

Beside each report stand the folders and files that it was made from, and a hash of the name and `FileState` of every
file in them. Looking a report up costs one `stat` a file and loads neither torch nor pyarrow.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import xxhash

from calotype.core.atomic import replace_file
from calotype.core.file_state import file_state, state_of
from calotype.core.home import cache_folder

__all__ = ["code_state", "files_state", "folders_state", "outside", "recall", "remember", "report_key"]

_MOST: Final = 50
"""Reports kept in a room, the newest ones."""

Json = dict[str, Any]


def report_key(config: Any, **options: Any) -> str:
    """The name of a report: a hash of everything it depends on that is no file."""
    plain = json.dumps([config, options, str(Path.cwd())], sort_keys=True, default=repr)
    return xxhash.xxh3_128_hexdigest(plain.encode("utf-8", "surrogatepass"))


def code_state() -> str:
    """A hash of the state of this package's own code: another one may find what this one could not."""
    package = Path(__file__).parents[1]
    return files_state(sorted(map(str, package.rglob("*.py"))))


def folders_state(folders: Sequence[str]) -> str:
    """A hash of the names and `FileState`s of all files in and below these folders."""
    digest = xxhash.xxh3_128()
    for folder in folders:
        digest.update(f"{folder}\n".encode("utf-8", "surrogateescape"))
        digest.update("\n".join(sorted(_lines(folder))).encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def files_state(files: Sequence[str]) -> str:
    """The same of single files."""
    digest = xxhash.xxh3_128()
    for file in files:
        digest.update(f"{file} {file_state(file)}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def recall(room: str, key: str) -> Json | None:
    """The report of this name, if all that it was made from is as it was.

    Args:
        room: Folder below `$CALOTYPE_CACHE` (else `~/.cache/calotype`).
        key: Its `report_key`.
    """
    try:
        kept = json.loads((cache_folder(room) / f"{key}.json").read_text("utf-8"))
        folders, files = kept["folders"], kept["files"]
        same = folders_state(folders["paths"]) == folders["state"] and files_state(files["paths"]) == files["state"]
        return dict(kept["report"]) if same else None
    except (OSError, ValueError, KeyError, TypeError):
        return None  # none there, or a damaged one: it is made anew


def remember(
    room: str,
    key: str,
    report: Json,
    *,
    folders: Sequence[str],
    folders_were: str,
    files: Sequence[str],
    files_were: str,
) -> None:
    """Keeps a report.

    Args:
        room: As for `recall`.
        key: Its `report_key`.
        report: What was found, as plain values.
        folders: What it was made from: these with all in them, since a new file would be news too,
        folders_were: their state before they were read (a change in the meantime makes the report stale);
        files: and these outside of them,
        files_were: with their state.
    """
    kept = {
        "folders": {"paths": list(folders), "state": folders_were},
        "files": {"paths": list(files), "state": files_were},
        "report": report,
    }
    folder = cache_folder(room)
    with contextlib.suppress(OSError):  # a cache that can't be written costs time, not the report
        folder.mkdir(parents=True, exist_ok=True)
        replace_file(folder / f"{key}.json", json.dumps(kept).encode(), durable=False)
        _prune(folder)


def _prune(folder: Path) -> None:
    """Delete all but the newest reports, and temporary files that killed processes left."""
    horizon = time.time() - 3600
    reports = sorted(folder.glob("*.json"), key=lambda path: path.stat().st_mtime, reverse=True)
    temporary = [*folder.glob(".writing-*"), *folder.glob("*.tmp")]
    for path in (*reports[_MOST:], *(path for path in temporary if path.stat().st_mtime < horizon)):
        path.unlink(missing_ok=True)


def _lines(folder: str) -> Iterator[str]:
    """One line for each file in and below a folder; a loop of links is walked once."""
    seen: set[tuple[int, int]] = set()
    stack = [folder]
    while stack:
        place = stack.pop()
        try:
            info = os.stat(place)  # noqa: PTH116 - plain calls: this runs for every file of a large folder
            if (info.st_dev, info.st_ino) in seen:
                continue
            seen.add((info.st_dev, info.st_ino))
            with os.scandir(place) as entries:
                for entry in entries:
                    if entry.is_dir():
                        stack.append(entry.path)
                    else:
                        yield f"{entry.path} {_entry_stamp(entry)}"
        except OSError as error:
            yield f"{place} {error.errno}"


def _entry_stamp(entry: os.DirEntry[str]) -> str:
    try:
        info = entry.stat()
    except OSError as error:  # a broken link
        return f"error {error.errno}"
    return str(state_of(info))


def outside(paths: Iterable[str], folders: Sequence[str]) -> tuple[str, ...]:
    """Those of the paths that lie in none of the folders, sorted, each once."""
    heads = tuple(f"{folder.rstrip('/')}/" for folder in folders)
    return tuple(sorted({path for path in paths if not path.startswith(heads)})) if heads else tuple(sorted(set(paths)))
