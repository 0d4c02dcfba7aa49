"""Reports cached on disk until a file that they were made from changes.

Stored with each report: the folders and files it was made from, and a hash of the name and `FileState` of every file in
them. Looking a report up takes one `stat` for each file and imports neither torch nor pyarrow.
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
from calotype.core.cache_folder import cache_folder
from calotype.core.file_state import file_state, state_of

__all__ = ["code_state", "files_state", "folders_state", "load_report", "outside", "report_key", "save_report"]

_MOST: Final = 50
"""Maximum number of reports in a cache; the oldest are deleted."""

Json = dict[str, Any]


def report_key(config: Any, **options: Any) -> str:
    """Return the cache key of a report: a hash of everything except files that it depends on."""
    plain = json.dumps([config, options, str(Path.cwd())], sort_keys=True, default=repr)
    return xxhash.xxh3_128_hexdigest(plain.encode("utf-8", "surrogatepass"))


def code_state() -> str:
    """Return a hash of the state of calotype's own files, since another version may have another result."""
    package = Path(__file__).parents[1]
    return files_state(sorted(map(str, package.rglob("*.py"))))


def folders_state(folders: Sequence[str]) -> str:
    """Return a hash of the names and `FileState`s of all files in and below these folders."""
    digest = xxhash.xxh3_128()
    for folder in folders:
        digest.update(f"{folder}\n".encode("utf-8", "surrogateescape"))
        digest.update("\n".join(sorted(_lines(folder))).encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def files_state(files: Sequence[str]) -> str:
    """Return a hash of the names and `FileState`s of these files."""
    digest = xxhash.xxh3_128()
    for file in files:
        digest.update(f"{file} {file_state(file)}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def load_report(cache: str, key: str) -> Json | None:
    """Return a cached report; None without one, or if a file it was made from has changed.

    Args:
        cache: Name of the cache's folder below `$CALOTYPE_CACHE` (else `~/.cache/calotype`).
        key: The report's `report_key`.
    """
    try:
        document = json.loads((cache_folder(cache) / f"{key}.json").read_text("utf-8"))
        folders, files = document["folders"], document["files"]
        same = folders_state(folders["paths"]) == folders["state"] and files_state(files["paths"]) == files["state"]
        return dict(document["report"]) if same else None
    except (OSError, ValueError, KeyError, TypeError):
        return None  # no report, or a damaged one


def save_report(
    cache: str,
    key: str,
    report: Json,
    *,
    folders: Sequence[str],
    folders_were: str,
    files: Sequence[str],
    files_were: str,
) -> None:
    """Cache a report.

    Args:
        cache: As for `load_report`.
        key: The report's `report_key`.
        report: Plain JSON values.
        folders: Folders that it was made from. A new file in one invalidates the report, too.
        folders_were: Their `folders_state` before they were read: a change in the meantime invalidates the report.
        files: Files outside of the folders that it was made from.
        files_were: Their `files_state` before they were read.
    """
    document = {
        "folders": {"paths": list(folders), "state": folders_were},
        "files": {"paths": list(files), "state": files_were},
        "report": report,
    }
    folder = cache_folder(cache)
    with contextlib.suppress(OSError):  # a cache that can't be written costs time, not the report
        folder.mkdir(parents=True, exist_ok=True)
        replace_file(folder / f"{key}.json", json.dumps(document).encode(), durable=False)
        _prune(folder)


def _prune(folder: Path) -> None:
    """Delete all but the newest reports, and temporary files that killed processes left."""
    horizon = time.time() - 3600
    reports = sorted(folder.glob("*.json"), key=lambda path: path.stat().st_mtime, reverse=True)
    temporary = [*folder.glob(".writing-*"), *folder.glob("*.tmp")]
    for path in (*reports[_MOST:], *(path for path in temporary if path.stat().st_mtime < horizon)):
        path.unlink(missing_ok=True)


def _lines(folder: str) -> Iterator[str]:
    """Yield a line for each file in and below a folder; a loop of links is followed once."""
    seen: set[tuple[int, int]] = set()
    stack = [folder]
    while stack:
        path = stack.pop()
        try:
            info = os.stat(path)  # noqa: PTH116 - plain calls: this runs for every file of a large folder
            if (info.st_dev, info.st_ino) in seen:
                continue
            seen.add((info.st_dev, info.st_ino))
            with os.scandir(path) as entries:
                for entry in entries:
                    if entry.is_dir():
                        stack.append(entry.path)
                    else:
                        yield f"{entry.path} {_entry_stamp(entry)}"
        except OSError as error:
            yield f"{path} {error.errno}"


def _entry_stamp(entry: os.DirEntry[str]) -> str:
    try:
        info = entry.stat()
    except OSError as error:  # a broken link
        return f"error {error.errno}"
    return str(state_of(info))


def outside(paths: Iterable[str], folders: Sequence[str]) -> tuple[str, ...]:
    """Return the paths that are in none of the folders, sorted and without duplicates."""
    heads = tuple(f"{folder.rstrip('/')}/" for folder in folders)
    return tuple(sorted({path for path in paths if not path.startswith(heads)})) if heads else tuple(sorted(set(paths)))
