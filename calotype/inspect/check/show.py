"""A report for people: tables in a terminal, one line a finding in a pipe."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import TYPE_CHECKING, Final

from calotype.inspect.check.kinds import KINDS, Level
from calotype.inspect.check.report import CacheCost, Finding, PlanFacts, Report, TokenFacts

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

__all__ = ["lines", "print_report", "size_text", "time_text"]

_FEW: Final = 5
"""Findings of one kind that are shown in a terminal; all of them go to pipes, JSON and the fix list."""
_COLOURS: Final[dict[Level, str]] = {"error": "bold red", "warning": "yellow", "note": "cyan"}
_BAR: Final = 30


def lines(report: Report) -> Iterator[str]:
    """Plain lines, one fact each, for pipes and logs."""
    yield f"checked: {_subject(report)}"
    for found in report.findings:
        others = f" [{', '.join(found.others)}]" if found.others else ""
        where = found.where or report.source
        yield _flat(f"{found.level}: {found.kind}: {where}: {found.detail}{others} ({found.advice})")
    if report.captions is not None:
        yield f"captions: {_captions(report)}"
    for tokens in report.tokens:
        yield f"tokens: {tokens.key}: {_tokens(tokens)}"
        for low, high, count in tokens.histogram:
            yield f"tokens: {tokens.key}: {low}-{high}: {count}"
    if report.plan is not None:
        yield from (f"plan: {line}" for line in _plan(report.plan))
    for cost in report.cost:
        yield f"cost: {cost.level}: {', '.join(filter(None, _cost(cost)))}: {cost.note}"
    yield from (f"not checked: {sentence}" for sentence in report.not_checked)
    yield f"result: {_verdict(report)}"


def print_report(report: Report, console: Console) -> None:
    """Tables for a terminal."""
    from rich.markup import escape
    from rich.table import Table

    console.print(f"[bold]Checked[/] {escape(_subject(report))}\n", highlight=False)
    for kind, group in groupby(report.findings, key=lambda found: (found.kind, found.level)):
        console.print(_findings(*kind, list(group), report))
    if report.captions is not None:
        console.print(f"[bold]Captions[/]  {escape(_captions(report))}", highlight=False)
    for tokens in report.tokens:
        console.print(_histogram(tokens))
    if report.plan is not None:
        first, *rest = _plan(report.plan)
        console.print(f"[bold]Plan[/]  {first}", highlight=False)
        for line in rest:
            console.print(f"      {line}", highlight=False)
    if report.cost:
        table = Table("cache", "takes", "to fill", "an epoch", "", box=None, header_style="bold", padding=(0, 2, 0, 0))
        for cost in report.cost:
            table.add_row(cost.level, *_cost_cells(cost), escape(cost.note))
        console.print(table)
    for sentence in report.not_checked:
        console.print(f"[dim]Not checked:[/] {escape(sentence)}", highlight=False)
    colour = "green" if report.clean else "red"
    console.print(f"\n[bold {colour}]{_verdict(report)}[/]", highlight=False)


def size_text(count: int | None) -> str:
    """Bytes for people, in powers of ten: `4.2 MB`."""
    if count is None:
        return "?"
    value = float(count)
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if value < 1000 or unit == "TB":
            break
        value /= 1000
    return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"


def time_text(seconds: float | None) -> str:
    """Seconds for people: `0.3 s`, `4 min 10 s`, `2 h 5 min`."""
    if seconds is None:
        return "?"
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def _flat(text: str) -> str:
    """Without line breaks, which a file's name or a caption may hold."""
    return " ".join(text.splitlines())


def _subject(report: Report) -> str:
    model = f" for {report.model}" if report.model else ""
    look = "every picture decoded" if report.deep else "headers only"
    aside = f" and {report.held_out:,} held out" if report.held_out else ""
    return f"{report.source}{model}: {report.images:,} images{aside}, {look} ({report.made})"


def _verdict(report: Report) -> str:
    levels: tuple[Level, ...] = ("error", "warning", "note")
    counts = [(report.count(level), level) for level in levels]
    said = ", ".join(f"{count:,} {level}{'s' if count != 1 else ''}" for count, level in counts if count)
    return f"clean{f' ({said})' if said else ''}" if report.clean else said


def _findings(kind: str, level: Level, group: list[Finding], report: Report) -> RenderableType:
    from rich.markup import escape
    from rich.table import Table

    title = f"[{_COLOURS[level]}]{level}[/]  [bold]{KINDS[kind].title}[/] [dim]{len(group):,}[/]"
    table = Table(title=title, title_justify="left", title_style="", box=None, show_header=False, padding=(0, 2, 0, 2))
    table.add_column(overflow="fold", ratio=1)
    table.add_column(overflow="fold", ratio=2)
    advices = dict.fromkeys(found.advice for found in group)
    for found in group[:_FEW]:
        others = f"; with {_some(found.others)}" if found.others else ""
        advice = f" → {found.advice}" if len(advices) > 1 else ""
        table.add_row(escape(found.where or report.source), escape(f"{found.detail}{others}{advice}"))
    if len(group) > _FEW:
        table.add_row("…", f"{len(group) - _FEW:,} more (all in --json, --fix-list, or a pipe)")
    if len(advices) == 1:
        table.caption = escape(f"→ {next(iter(advices))}")
        table.caption_justify = "left"
    return table


def _some(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:_FEW]) + (f" and {len(names) - _FEW:,} more" if len(names) > _FEW else "")


def _captions(report: Report) -> str:
    facts = report.captions
    assert facts is not None
    low, median, high = facts.characters
    trigger = f", trigger {facts.trigger!r} in {facts.trigger_in:,}" if facts.trigger else ""
    return (
        f"{facts.captions:,} ({facts.distinct:,} different), {low} to {high} characters, half under {median + 1}; "
        f"{facts.images_without:,} images without, {facts.images_with_several:,} with several{trigger}"
    )


def _tokens(tokens: TokenFacts) -> str:
    return (
        f"{tokens.shortest} to {tokens.longest} tokens, median {tokens.median}, limit {tokens.limit}, "
        f"{tokens.cut:,} cut"
    )


def _histogram(tokens: TokenFacts) -> RenderableType:
    from rich.table import Table

    table = Table(
        title=f"[bold]{tokens.key}[/]  {_tokens(tokens)}",
        title_justify="left",
        title_style="",
        box=None,
        show_header=False,
        padding=(0, 1, 0, 2),
    )
    most = max((count for *_, count in tokens.histogram), default=1) or 1
    for low, high, count in tokens.histogram:
        bar = "█" * round(_BAR * count / most) or ("▏" if count else "")
        colour = "red" if low > tokens.limit else "cyan"
        table.add_row(f"{low}–{high}", f"[{colour}]{bar}[/]", f"{count:,}")
    return table


def _plan(plan: PlanFacts) -> Iterator[str]:
    yield (
        f"{plan.batches:,} batches an epoch on each of {plan.world_size} rank(s), {plan.samples:,} samples, "
        f"batch_size {plan.batch_size}, remainder={plan.remainder}"
    )
    if plan.buckets:
        yield "buckets (width×height: images)  " + "  ".join(f"{w}×{h}: {n:,}" for h, w, n in plan.buckets)
    for policy in plan.policies:
        yield (
            f"remainder={policy.policy}: {policy.batches:,} batches, {policy.samples:,} samples shown, "
            f"{policy.left_out:,} left out, {policy.repeated:,} repeated, {policy.short_batches:,} short batches"
        )


def _cost_cells(cost: CacheCost) -> tuple[str, str, str]:
    takes = "" if cost.level == "none" else f"{size_text(cost.bytes)} {cost.place}".strip()
    return takes, "" if cost.level == "none" else time_text(cost.fill_seconds), time_text(cost.epoch_seconds)


def _cost(cost: CacheCost) -> tuple[str, str, str]:
    takes, fill, epoch = _cost_cells(cost)
    return takes, fill and f"{fill} to fill", f"{epoch} an epoch"
