"""Format a bench's report as text: the same table in a terminal and in a file."""

from __future__ import annotations

from collections.abc import Iterator

from calotype.bench.report import BenchReport, BenchRow
from calotype.terminal import time_text

__all__ = ["HEADS", "cells", "lines"]

HEADS = ("", "images/s", "wait", "memory", "device", "disk", "prepare", "pays from")


def lines(report: BenchReport) -> Iterator[str]:
    """Yield the lines of a report: table, configs, reasons and the recommendation."""
    yield (
        f"{report.model}, {report.pictures:,} images, batches of {report.batch_size}; up to {report.steps} batches "
        f"timed each way on {report.measured_pictures:,} of the images"
    )
    yield f"on {report.device}: {report.machine}"
    yield ""
    running = [row for row in report.rows if row.refused is None]
    table = [HEADS, *map(cells, running)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for title, *values in table:
        yield "  ".join([title.ljust(widths[0]), *map(str.rjust, values, widths[1:])]).rstrip()
    yield ""
    for row in running:
        if row.config:
            yield f"{row.title}: {', '.join(row.config)}"
        for note in row.notes:
            yield f"{row.title}: {note}"
    for row in report.rows:
        if row.refused is not None:
            yield f"{row.title}: left out: {row.refused}"
    yield ""
    if report.recommendation is None:
        yield "Recommended: none; no strategy runs here"
        return
    best = next(row for row in report.rows if row.strategy == report.recommendation.strategy)
    yield f"Recommended: {best.title}. {report.recommendation.reason}"


def cells(row: BenchRow) -> tuple[str, ...]:
    """Return the table cells of a strategy that ran, in the order of `HEADS`."""
    assert row.images_per_second is not None and row.data_wait is not None
    pays = "" if row.strategy == "none" else "never" if row.break_even_epochs is None else _epochs(row)
    return (
        row.title,
        f"{row.images_per_second:.2f}",
        f"{100 * row.data_wait:.1f} %",
        _bytes(row.host_bytes),
        _bytes(row.device_bytes),
        _bytes(row.disk_bytes),
        time_text(row.prepare_seconds) if row.prepare_seconds else "0",
        pays,
    )


def _epochs(row: BenchRow) -> str:
    return f"epoch {row.break_even_epochs:,}"


def _bytes(count: int | None) -> str:
    if count is None:
        return "-"
    return "0" if not count else f"{count / 1e9:.2f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"
