"""The tables of `raw.py` and its targets, from its results."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from peers import CONTESTANTS, Contestant
from rich.console import Console
from rich.table import Table

COLUMNS = ("contestant", "images/s", "× sketch", "from – to", "× limit", "CPU ms/image", "peak MB", "PSNR dB")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One set of photos at one target size, and how each contestant did on it."""

    photos: str
    size: int
    results: dict[str, dict[str, Any]]
    """By contestant: `rates` (images/s, one a round), `cpu_ms` (an image, one a round), `memory_mb`, `psnr_db`; or
    `missing`, the reason why it did not run."""

    @property
    def title(self) -> str:
        return f"{self.photos} photos to {self.size} px"

    def ran(self, name: str) -> bool:
        return "rates" in self.results.get(name, {})

    def rate(self, name: str) -> float:
        rates: list[float] = self.results[name]["rates"]
        return statistics.median(rates)

    def ratios(self, name: str, other: str) -> list[float]:
        """How many times as fast as another, round by round: what slows a whole round down slows both."""
        pairs = zip(self.results[name]["rates"], self.results[other]["rates"], strict=True)
        return [mine / theirs for mine, theirs in pairs]

    def ratio(self, name: str, other: str) -> float:
        return statistics.median(self.ratios(name, other))

    def best_peer(self) -> str | None:
        """The fastest of the others with the same resampling."""
        peers = [c.name for c in CONTESTANTS if c.kind in {"peer", "sketch"} and c.same_resampling and self.ran(c.name)]
        return max(peers, key=self.rate, default=None)


def show(cells: list[Cell], facts: dict[str, Any], *, markdown: bool) -> None:
    """Prints a table a cell, and the targets; as markdown, ready to paste, or for the terminal."""
    print_text(_sentence(facts), markdown=markdown)
    for cell in cells:
        rows = [_row(cell, contestant) for contestant in CONTESTANTS if contestant.name in cell.results]
        print_table(cell.title, COLUMNS, rows, markdown=markdown)
    rows = list(_targets(cells))
    if rows:
        print_table("Targets", ("target", "photos", "measured", "reached"), rows, markdown=markdown)


def _sentence(facts: dict[str, Any]) -> str:
    sets = "; ".join(
        f"{s['name']}: {s['photos']} JPEGs of {s['megapixels']:.1f} megapixels, {s['megabytes']:.2f} MB on average"
        for s in facts["sets"]
    )
    return (
        f"{facts['machine']}; {facts['workers']} workers, batches of {facts['batch_size']}, medians of "
        f"{facts['rounds']} interleaved rounds of {facts['seconds']} s or more ({sets})."
    )


def _row(cell: Cell, contestant: Contestant) -> tuple[str, ...]:
    result = cell.results[contestant.name]
    if not cell.ran(contestant.name):
        return (f"{contestant.label} (not run: {result['missing']})", *[""] * (len(COLUMNS) - 1))
    sketch = cell.ratios(contestant.name, "sketch") if cell.ran("sketch") else []
    return (
        contestant.label,
        f"{cell.rate(contestant.name):.1f}",
        f"{statistics.median(sketch):.2f}" if sketch else "",
        f"{min(sketch):.2f} – {max(sketch):.2f}" if sketch else "",
        f"{cell.ratio(contestant.name, 'limit'):.2f}" if cell.ran("limit") else "",
        f"{statistics.median(result['cpu_ms']):.1f}",
        f"{result['memory_mb']:.0f}",
        f"{result['psnr_db']:.1f}",
    )


def _targets(cells: list[Cell]) -> Iterator[tuple[str, str, str, str]]:
    """(aim, cell, value, yes or no), for each aim that these cells can answer. Issue 2 of the project set them."""
    for cell in cells:
        if not cell.ran("calotype"):
            continue
        if cell.ran("sketch"):
            aim = 3.0 if cell.photos == "large" else 2.5
            yield _verdict(f"≥ {aim}× the sketch, exact pixels", cell, cell.ratio("calotype", "sketch"), aim)
            if cell.photos == "large" and cell.size == 512 and cell.ran("calotype-fast"):
                yield _verdict("≥ 5.0× the sketch, decode: fast", cell, cell.ratio("calotype-fast", "sketch"), 5.0)
        if (peer := cell.best_peer()) is not None:
            yield _verdict(f"≥ 1.3× the best peer ({peer})", cell, cell.ratio("calotype", peer), 1.3)
            ours, theirs = (cell.results[name]["memory_mb"] for name in ("calotype", peer))
            reached = "yes" if ours <= theirs else "no"
            yield (f"peak memory at or below {peer}'s", cell.title, f"{ours:.0f} MB, {theirs:.0f} MB", reached)
        if cell.ran("limit"):
            yield _verdict("≥ 0.9 of the bare limit, float32", cell, cell.ratio("calotype", "limit"), 0.9)
            if cell.ran("calotype-uint8"):
                ratio = cell.ratio("calotype-uint8", "limit")
                yield _verdict("≥ 0.9 of the bare limit, uint8", cell, ratio, 0.9)


def _verdict(aim: str, cell: Cell, value: float, least: float) -> tuple[str, str, str, str]:
    return aim, cell.title, f"{value:.2f}", "yes" if value >= least else "no"


def print_text(text: str, *, markdown: bool) -> None:
    if markdown:
        print(text)
    else:
        _console().print(text, highlight=False)


def print_table(title: str, columns: tuple[str, ...], rows: Sequence[tuple[str, ...]], *, markdown: bool) -> None:
    """The first column is text, the others figures."""
    if markdown:
        print(f"\n**{title}**\n")
        for line in (columns, ("---", *["---:"] * (len(columns) - 1)), *rows):
            print("| " + " | ".join(line) + " |")
        return
    table = Table(title=title, title_justify="left")
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number == 0 else "right", no_wrap=number > 0)
    for row in rows:
        table.add_row(*row)
    _console().print(table)


def _console() -> Console:
    return Console(width=None if sys.stdout.isatty() else 150)
