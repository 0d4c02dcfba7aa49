"""The report of `check` as plain values: what `--json` prints and the cache holds."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

from calotype.check.kinds import KINDS, Level

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
"""Of the JSON; changes when a key is renamed, removed or gets another meaning."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that the check found."""

    kind: str
    """A key of `KINDS`."""
    level: Level
    where: str
    """The row's id, or the file; empty when it is about the whole dataset."""
    detail: str
    """What was found, with numbers."""
    advice: str
    """What to do."""
    others: tuple[str, ...] = ()
    """The other rows or files that it concerns: the images that this one repeats, say."""


def finding(
    kind: str,
    where: str,
    detail: str,
    *,
    advice: str | None = None,
    level: Level | None = None,
    others: tuple[str, ...] = (),
) -> Finding:
    """Make a finding; level and advice default to those of its kind."""
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
    """The captions in numbers."""

    captions: int
    """Texts, empty ones not counted."""
    images_without: int
    images_with_several: int
    distinct: int
    characters: tuple[int, int, int]
    """Shortest, median, longest."""
    trigger: str | None
    """The config's trigger, else the word that most captions share and that looks like one; None without."""
    trigger_in: int
    """Images whose raw captions have it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenFacts:
    """How long the final captions are to one tokenizer; equal ones count once."""

    option: str
    """The transform's option that names the tokenizer: `t5_tokenizer_path`."""
    key: str
    """Of the batch: `t5_text_tokens`."""
    limit: int
    """Tokens that the model sees, framing ones included."""
    shortest: int
    median: int
    longest: int
    cut: int
    """Captions that are longer than the limit."""
    histogram: tuple[tuple[int, int, int], ...]
    """(from, to, captions): lengths in tokens, both ends included, from short to long without gaps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RemainderFacts:
    """What one policy does with the samples that don't fill a batch, in epoch 0."""

    policy: str
    """`short`, `repeat` or `drop`."""
    batches: int
    """An epoch, on each rank."""
    samples: int
    """Shown in it by all ranks, repeats counted."""
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
    """(height, width, images), the fullest first; empty when the image program decides the size."""
    samples: int
    """Of epoch 0: usable images, times their weights."""
    batches: int
    policies: tuple[RemainderFacts, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheCost:
    """What one cache level takes and saves, on this dataset, model and machine. None: can't be said, see `note`."""

    level: str
    """`none`, `downloads`, `pixel_cache`, `device_cache`, `encodings`."""
    place: str
    """`disk`, `memory`, `device` or empty."""
    bytes: int | None
    """That it takes when it holds the whole dataset."""
    fill_seconds: float | None
    """Once, to fill it."""
    epoch_seconds: float | None
    """Of preparing one epoch from it, with all threads of this machine."""
    note: str
    """What the estimate rests on, or why there is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Everything that `check` says."""

    source: str
    root: str
    """The folder that ids are relative to."""
    model: str | None
    made: str
    """When, ISO 8601 in UTC."""
    images: int
    """Rows of the dataset, the held-out ones not counted."""
    held_out: int
    """Rows of the validation side, which were looked at for leaks."""
    deep: bool
    """Whether every image was decoded."""
    findings: tuple[Finding, ...]
    captions: CaptionFacts | None
    tokens: tuple[TokenFacts, ...]
    plan: PlanFacts | None
    cost: tuple[CacheCost, ...]
    not_checked: tuple[str, ...]
    """Sentences: what was not looked at, and how to have it looked at."""

    @property
    def clean(self) -> bool:
        """No error and no warning; notes don't count."""
        return all(found.level == "note" for found in self.findings)

    def count(self, level: Level) -> int:
        return sum(found.level == level for found in self.findings)

    def to_json(self) -> dict[str, Any]:
        """Plain values; `docs/check.md` describes them."""
        levels: tuple[Level, ...] = ("error", "warning", "note")
        head = {"version": VERSION, "clean": self.clean}
        return head | {f"{level}s": self.count(level) for level in levels} | asdict(self)

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
