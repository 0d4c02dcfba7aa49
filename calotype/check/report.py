"""The report of `check` as plain values, for `--json` and the cache."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

from calotype.check.kinds import KINDS, LEVELS, Level

__all__ = [
    "CacheCost",
    "CaptionFacts",
    "Finding",
    "PlanFacts",
    "RemainderFacts",
    "Report",
    "TokenFacts",
    "finding",
]

VERSION = 1
"""Version of the JSON; increases when a key is renamed, removed or changes its meaning."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One finding of the check."""

    kind: str
    """A key of `KINDS`."""
    level: Level
    where: str
    """The row's id, or the file; empty for a finding about the whole dataset."""
    detail: str
    """What was found, with numbers."""
    advice: str
    """What to do about it."""
    others: tuple[str, ...] = ()
    """Other rows or files that it concerns, such as the duplicates of an image."""


def finding(
    kind: str,
    where: str,
    detail: str,
    *,
    advice: str | None = None,
    level: Level | None = None,
    others: tuple[str, ...] = (),
) -> Finding:
    """Make a finding.

    Args:
        kind: A key of `KINDS`.
        where: The row's id, or the file; empty for the whole dataset.
        detail: What was found, with numbers.
        advice: What to do about it. Default: the advice of the kind.
        level: How severe it is. Default: the level of the kind.
        others: Other rows or files that it concerns.
    """
    defaults = KINDS[kind]
    return Finding(
        kind=kind,
        level=level or defaults.level,
        where=where,
        detail=detail,
        advice=advice or defaults.advice,
        others=others,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptionFacts:
    """Statistics of the captions."""

    captions: int
    """Number of captions that are not empty."""
    images_without: int
    images_with_several: int
    distinct: int
    characters: tuple[int, int, int]
    """Shortest, median and longest length."""
    trigger: str | None
    """The config's trigger, else the likely one (`likely_trigger`); None without one."""
    trigger_in: int
    """Number of images whose raw captions contain it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenFacts:
    """Lengths of the distinct final captions in tokens of one tokenizer."""

    option: str
    """The transform's option that names the tokenizer: `t5_tokenizer_path`."""
    key: str
    """The key in the batch: `t5_text_tokens`."""
    limit: int
    """Maximum length in tokens, with special tokens."""
    shortest: int
    median: int
    longest: int
    cut: int
    """Number of captions that are longer than the limit."""
    histogram: tuple[tuple[int, int, int], ...]
    """Bins (first, last, captions): lengths in tokens, both ends included, ascending without gaps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RemainderFacts:
    """The effect of one policy for samples that do not fill a batch, in epoch 0."""

    policy: str
    """`short`, `repeat` or `drop`."""
    batches: int
    """Batches per epoch, on each rank."""
    samples: int
    """Samples of the epoch on all ranks, with repeats."""
    left_out: int
    repeated: int
    short_batches: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanFacts:
    """The epoch as the Loader will plan it."""

    batch_size: int
    world_size: int
    remainder: str
    """The config's policy."""
    buckets: tuple[tuple[int, int, int], ...]
    """(height, width, images), the fullest first; empty without buckets."""
    samples: int
    """Samples of epoch 0: usable images, times their weights."""
    batches: int
    policies: tuple[RemainderFacts, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheCost:
    """Cost and benefit of one cache level, for this dataset, model and machine. None: unknown, see `note`."""

    level: str
    """`none`, `downloads`, `pixel_cache`, `device_cache`, `encodings`."""
    place: str
    """`disk`, `memory`, `device` or empty."""
    bytes: int | None
    """Size of the cache with the whole dataset."""
    fill_seconds: float | None
    """Seconds to fill it, once."""
    epoch_seconds: float | None
    """Seconds to prepare one epoch from it, with all threads of this machine."""
    note: str
    """The basis of the estimate, or why there is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The result of `check`."""

    source: str
    root: str
    """The folder that ids are relative to."""
    model: str | None
    made: str
    """Time of the check, ISO 8601 in UTC."""
    images: int
    """Number of rows without held-out ones."""
    held_out: int
    """Number of validation rows, which are compared to find leaks."""
    deep: bool
    """Whether every image was decoded."""
    findings: tuple[Finding, ...]
    captions: CaptionFacts | None
    tokens: tuple[TokenFacts, ...]
    plan: PlanFacts | None
    cost: tuple[CacheCost, ...]
    not_checked: tuple[str, ...]
    """Sentences: what was not checked, and how to check it."""

    @property
    def clean(self) -> bool:
        """Whether there is no error and no warning; notes do not count."""
        return all(found.level == "note" for found in self.findings)

    def count(self, level: Level) -> int:
        return sum(found.level == level for found in self.findings)

    def to_json(self) -> dict[str, Any]:
        """Return plain values; `docs/check.md` describes them."""
        head = {"version": VERSION, "clean": self.clean}
        return head | {f"{level}s": self.count(level) for level in LEVELS} | asdict(self)

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Report:
        """Restore a report from the values of `to_json`, after a round trip through JSON."""
        values = {field.name: document[field.name] for field in fields(cls)}
        values["findings"] = tuple(
            Finding(**{**found, "others": tuple(found["others"])}) for found in document["findings"]
        )
        if (captions := document["captions"]) is not None:
            values["captions"] = CaptionFacts(**{**captions, "characters": tuple(captions["characters"])})
        values["tokens"] = tuple(
            TokenFacts(**{**one, "histogram": tuple(map(tuple, one["histogram"]))}) for one in document["tokens"]
        )
        if (plan := document["plan"]) is not None:
            policies = tuple(RemainderFacts(**policy) for policy in plan["policies"])
            values["plan"] = PlanFacts(**{**plan, "buckets": tuple(map(tuple, plan["buckets"])), "policies": policies})
        values["cost"] = tuple(CacheCost(**one) for one in document["cost"])
        values["not_checked"] = tuple(document["not_checked"])
        return cls(**values)
