"""The fix list: one line per file to fix, for an editor or a script."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from calotype.check.report import Finding, Report
from calotype.core.output_files import write_output
from calotype.terminal import json_line, visible

__all__ = ["write_fix_list"]

_KEEP_FIRST = frozenset({"same_file", "same_pixels", "near_duplicate"})
"""Kinds whose `where` is the image to keep; only `others` are to be fixed."""

_OTHERS_ONLY = frozenset({"trigger_missing", "trigger_twice"})


def write_fix_list(report: Report, file: Path) -> int:
    """Write every error and warning about a file or row. Findings about the config are left out.

    A `.jsonl` file gets one JSON object per line (`path`, `kind`, `level`, `detail`, `advice`); any other file gets the
    same columns in this order, separated by tabs, so that `cut -f1` prints the paths.

    Args:
        report: The report.
        file: The file to write; it is replaced atomically.

    Returns:
        The number of lines.

    Raises:
        ConfigError: It can't be written.
    """
    rows = list(_rows(report))
    if file.suffix == ".jsonl":
        text = "".join(json_line(row) + "\n" for row in rows)
    else:
        text = "".join("\t".join(visible(value) for value in row.values()) + "\n" for row in rows)
    write_output(file, text)
    return len(rows)


def _rows(report: Report) -> Iterator[dict[str, str]]:
    for found in report.findings:
        if found.level == "note":
            continue
        for where in dict.fromkeys(_concerned(found)):
            path = Path(report.root, where)
            yield {
                "path": str(path) if path.exists() else where,
                "kind": found.kind,
                "level": found.level,
                "detail": found.detail,
                "advice": found.advice,
            }


def _concerned(found: Finding) -> Iterator[str]:
    if found.where and found.kind not in _KEEP_FIRST | _OTHERS_ONLY:
        yield found.where
    yield from found.others
