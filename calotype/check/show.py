"""Print a report: tables in a terminal, one line for each finding in a pipe."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from itertools import groupby
from typing import TYPE_CHECKING, Final

from calotype.check.kinds import KINDS, LEVELS, Level
from calotype.check.report import CacheCost, CaptionFacts, Finding, PlanFacts, Report, TokenFacts
from calotype.terminal import size_text, styled, time_text, visible

if TYPE_CHECKING:
    from rich.console import Console, RenderableType  # noqa: TID251 - a type

__all__ = ["lines", "print_report"]

_FEW: Final = 5
"""Maximum findings of one kind in a terminal; pipes, JSON and the fix list get all of them."""
_MANY: Final = 20
"""Maximum names, and maximum buckets, in one line; JSON has all of them."""
_BUCKETS: Final = "buckets (width×height: images)"
_COLOURS: Final[dict[Level, str]] = {"error": "bold red", "warning": "yellow", "note": "cyan"}
_BAR: Final = 30
"""Length of a histogram's longest bar, in characters."""
_NAME: Final = 40
"""Characters after which a file name wraps."""


def lines(report: Report) -> Iterator[str]:
    """Yield plain lines, one fact each, for pipes and logs."""
    yield visible(f"checked: {_subject(report)}")
    for found in report.findings:
        where = found.where or report.source
        yield visible(f"{found.level}: {found.kind}: {where}: {_detail(found, _MANY)} ({found.advice})")
    if report.captions is not None:
        yield f"captions: {_captions(report.captions)}"
    for tokens in report.tokens:
        yield f"tokens: {tokens.key}: {_tokens(tokens)}"
        for low, high, count in tokens.histogram:
            yield f"tokens: {tokens.key}: {low}-{high}: {count}"
    if report.plan is not None:
        yield from (f"plan: {line}" for line in _plan(report.plan))
    for cost in _applicable(report.cost):
        figures = f"{', '.join(_cost(cost))}: " if _measured(cost) else ""
        yield f"cost: {cost.level}: {figures}{cost.note}"
    yield from (f"not checked: {sentence}" for sentence in report.not_checked)
    yield f"result: {_verdict(report)}"


def print_report(report: Report, console: Console) -> None:
    """Print headings and tables to a terminal."""
    from rich.columns import Columns
    from rich.padding import Padding
    from rich.table import Table

    def heading(name: str, text: str) -> None:
        """Print a name, and beside it a text, which is wrapped there."""
        table = Table.grid(padding=(0, 2, 0, 0))
        table.add_column(no_wrap=True, style="bold")
        table.add_column(overflow="fold")
        table.add_row(styled(name), styled(text))
        console.print(table)

    def indented(what: RenderableType) -> RenderableType:
        return Padding(what, (0, 0, 0, 2), expand=False)

    heading("Checked", _subject(report))
    for (kind, level), group in groupby(report.findings, key=lambda found: (found.kind, found.level)):
        found = list(group)
        console.print()
        title = styled((level, _COLOURS[level]), "  ", (KINDS[kind].title, "bold"), "  ", (f"{len(found):,}", "dim"))
        console.print(title)
        console.print(indented(_findings(found)))
    if report.captions is not None:
        console.print()
        heading("Captions", _captions(report.captions))
    for tokens in report.tokens:
        console.print()
        heading(tokens.key, _tokens(tokens))
        if tokens.cut:  # else the figures say enough
            console.print(indented(_histogram(tokens)))
    if report.plan is not None:
        console.print()
        heading("Plan", _epoch(report.plan))
        if report.plan.buckets:
            console.print(indented(styled(_BUCKETS)))
            console.print(indented(Columns(map(styled, _fullest(report.plan)), padding=(0, 2))))
        if _policies_differ(report.plan):
            console.print(indented(_policies(report.plan)))
    if report.cost:
        console.print()
        heading("Cost", "of each cache, on this machine")
        costs = _applicable(report.cost)
        table = Table("cache", "takes", "to fill", "an epoch", box=None, header_style="dim", padding=(0, 2, 0, 0))
        for cost in filter(_measured, costs):
            table.add_row(cost.level, *_cost_cells(cost))
        console.print(indented(table))
        for cost in costs:
            console.print(indented(styled((f"{cost.level}: {cost.note}", "dim"))))
    console.print()
    for sentence in report.not_checked:
        heading("Not checked", sentence)
    console.print(styled((_verdict(report), "bold green" if report.clean else "bold red")))


def _number(count: int, thing: str) -> str:
    return f"{count:,} {thing}{'' if count == 1 else 's'}"


def _subject(report: Report) -> str:
    model = f" for {report.model}" if report.model else ""
    look = "every image decoded" if report.deep else "headers only"
    aside = f" and {report.held_out:,} held out" if report.held_out else ""
    made = datetime.fromisoformat(report.made).astimezone(UTC)
    return f"{report.source}{model}: {_number(report.images, 'image')}{aside}, {look} ({made:%Y-%m-%d %H:%M} UTC)"


def _verdict(report: Report) -> str:
    said = ", ".join(_number(count, level) for level in LEVELS if (count := report.count(level)))
    return f"clean{f' ({said})' if said else ''}" if report.clean else said


def _findings(group: list[Finding]) -> RenderableType:
    """Render the first findings of one kind; the advice follows, once if it is the same for all."""
    from rich.console import Group
    from rich.table import Table

    advices = dict.fromkeys(found.advice for found in group)
    if len(group) > 1 and len({(found.detail, found.others) for found in group}) == 1 and group[0].where:
        # The same of several files: said once.
        said = styled(f"{group[0].detail}: {_some([found.where for found in group], _MANY)}")
        return Group(said, *(styled((f"→ {advice}", "italic")) for advice in advices))
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(overflow="fold", max_width=_NAME)
    table.add_column(overflow="fold")
    parts: list[RenderableType] = []
    for found in group[:_FEW]:
        detail = styled(_detail(found, _FEW) + (f" → {found.advice}" if len(advices) > 1 else ""))
        if found.where:
            table.add_row(styled(found.where), detail)
        else:  # about the dataset as a whole
            parts.append(detail)
    if table.row_count:
        parts.append(table)
    if len(group) > _FEW:
        parts.append(styled((f"… and {len(group) - _FEW:,} more (all in --json, --fix-list, or a pipe)", "dim")))
    if len(advices) == 1:
        parts.append(styled((f"→ {group[0].advice}", "italic")))
    return Group(*parts)


def _detail(found: Finding, most: int) -> str:
    return f"{found.detail}; with {_some(found.others, most)}" if found.others else found.detail


def _some(names: Sequence[str], most: int) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most:,} more" if len(names) > most else "")


def _captions(facts: CaptionFacts) -> str:
    low, median, high = facts.characters
    trigger = f"; trigger {facts.trigger!r} in those of {_number(facts.trigger_in, 'image')}" if facts.trigger else ""
    return (
        f"{facts.captions:,}, {facts.distinct:,} different, {low:,} to {high:,} characters, median {median:,}; "
        f"{_number(facts.images_without, 'image')} without, {facts.images_with_several:,} with several{trigger}"
    )


def _tokens(tokens: TokenFacts) -> str:
    return (
        f"{tokens.shortest:,} to {tokens.longest:,} tokens, median {tokens.median:,}, limit {tokens.limit}, "
        f"{tokens.cut:,} cut"
    )


def _histogram(tokens: TokenFacts) -> RenderableType:
    from rich.table import Table

    most = max((count for *_, count in tokens.histogram), default=1) or 1
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(justify="right")
    table.add_column(justify="right")
    for low, high, count in tokens.histogram:
        bar = "█" * round(_BAR * count / most) or ("▏" if count else "")
        beyond = low > tokens.limit
        colour = "red" if beyond else "cyan"
        table.add_row(f"{low}–{high}", f"{count:,}", styled((f"{bar}  cut" if beyond and count else bar, colour)))
    return table


def _epoch(plan: PlanFacts) -> str:
    ranks = f" on each of {plan.world_size} ranks" if plan.world_size > 1 else ""
    return (
        f"{plan.batches:,} {'batch' if plan.batches == 1 else 'batches'} an epoch{ranks}, "
        f"{_number(plan.samples, 'sample')}, batch_size {plan.batch_size}, remainder={plan.remainder}"
    )


def _fullest(plan: PlanFacts) -> list[str]:
    """Return the buckets with the most images, and how many more there are."""
    more = [f"and {len(plan.buckets) - _MANY:,} more"] if len(plan.buckets) > _MANY else []
    return [*(f"{w}×{h}: {n:,}" for h, w, n in plan.buckets[:_MANY]), *more]


def _policies_differ(plan: PlanFacts) -> bool:
    return len({replace(policy, policy="") for policy in plan.policies}) > 1


def _policies(plan: PlanFacts) -> RenderableType:
    from rich.table import Table

    table = Table("remainder", box=None, header_style="dim", padding=(0, 2, 0, 0))
    for title in ("batches", "samples shown", "left out", "repeated", "short batches"):
        table.add_column(title, justify="right")
    for policy in plan.policies:
        counts = (policy.batches, policy.samples, policy.left_out, policy.repeated, policy.short_batches)
        chosen = policy.policy == plan.remainder
        name = f"{policy.policy} (chosen)" if chosen else policy.policy
        table.add_row(name, *(f"{count:,}" for count in counts), style="bold" if chosen else None)
    return table


def _plan(plan: PlanFacts) -> Iterator[str]:
    yield _epoch(plan)
    if plan.buckets:
        yield f"{_BUCKETS}  {'  '.join(_fullest(plan))}"
    for policy in plan.policies if _policies_differ(plan) else ():
        yield (
            f"remainder={policy.policy}: {policy.batches:,} batches, {policy.samples:,} samples shown, "
            f"{policy.left_out:,} left out, {policy.repeated:,} repeated, {policy.short_batches:,} short batches"
        )


def _applicable(costs: Sequence[CacheCost]) -> list[CacheCost]:
    """Return the levels that have something to cache."""
    return [cost for cost in costs if cost.level != "downloads" or cost.bytes]


def _measured(cost: CacheCost) -> bool:
    return cost.epoch_seconds is not None


def _cost_cells(cost: CacheCost) -> tuple[str, str, str]:
    takes = "" if cost.level == "none" else f"{size_text(cost.bytes)} {cost.place}".strip()
    return takes, "" if cost.level == "none" else time_text(cost.fill_seconds), time_text(cost.epoch_seconds)


def _cost(cost: CacheCost) -> list[str]:
    takes, fill, epoch = _cost_cells(cost)
    return [*filter(None, (takes, fill and f"{fill} to fill")), f"{epoch} an epoch"]
