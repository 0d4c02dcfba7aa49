"""Lengths of the final captions in tokens of each tokenizer, and findings about truncated captions."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Iterator, Sequence

from calotype.check.report import Finding, TokenFacts, finding
from calotype.data.dataset import TextToImageDataset
from calotype.models import Tokenizer, TokenTransform
from calotype.types import SampleKey

__all__ = ["histogram", "longest_texts", "token_facts"]

_BINS = 8
"""Histogram bins up to the limit."""
_AROUND = 32
"""Characters shown before and after the cut."""


def token_facts(dataset: TextToImageDataset) -> tuple[tuple[TokenFacts, ...], list[Finding]]:
    """Count the tokens of every final caption at its longest: after the caption transform, with nothing dropped.

    Returns:
        The lengths for each tokenizer; and a finding for each text that a tokenizer truncates. Both are empty if the
        dataset has no tokenizers.
    """
    transform = dataset.model_transform
    if not isinstance(transform, TokenTransform):
        return (), []
    texts = longest_texts(dataset)
    distinct = list(texts)
    facts = []
    lengths: dict[str, list[int]] = {}
    for field in transform.fields:
        counts = field.tokenizer.counts(distinct)
        lengths[field.spec.key] = counts
        facts.append(_facts(field.spec.option, field.spec.key, field.max_length, counts))
    ids = dataset.manifest.ids
    findings = []
    for field in transform.fields:
        for place, (text, count) in enumerate(zip(distinct, lengths[field.spec.key], strict=True)):
            if count <= field.max_length:
                continue
            elsewhere = [
                other.spec.key
                for other in transform.fields
                if other.max_length > field.max_length and lengths[other.spec.key][place] <= other.max_length
            ]
            rows = [ids[row].as_py() for row in texts[text]]
            findings.append(_cut(field.tokenizer, field.spec.key, text, count, field.max_length, rows, elsewhere))
    return tuple(facts), findings


def longest_texts(dataset: TextToImageDataset) -> dict[str, list[int]]:
    """Return every possible final caption, with nothing dropped, and the rows that it is a caption of."""
    transform = dataset.caption_transform.without_dropping()
    plain = not (transform.template or transform.trigger or transform.custom)
    found: dict[str, list[int]] = {}
    for row, captions in enumerate(dataset.manifest.captions.to_pylist()):
        for caption in _chosen(captions, transform.choose):
            text = caption if plain else transform.draw([caption], SampleKey(row), dataset.seed).text
            rows = found.setdefault(text, [])
            if not rows or rows[-1] != row:
                rows.append(row)
    return found


def _chosen(captions: Sequence[str], choose: str | tuple[float, ...]) -> Iterator[str]:
    """Yield the captions that the option `choose` may select."""
    if choose == "first":
        yield from captions[:1]
    elif choose == "longest":
        yield max(captions, key=len)
    elif isinstance(choose, tuple) and any(choose[: len(captions)]):
        yield from (caption for caption, weight in zip(captions, choose, strict=False) if weight)
    else:
        yield from captions


def _facts(option: str, key: str, limit: int, counts: Sequence[int]) -> TokenFacts:
    return TokenFacts(
        option=option,
        key=key,
        limit=limit,
        shortest=min(counts),
        median=round(statistics.median(counts)),
        longest=max(counts),
        cut=sum(count > limit for count in counts),
        histogram=histogram(counts, limit),
    )


def histogram(counts: Sequence[int], limit: int) -> tuple[tuple[int, int, int], ...]:
    """Return bins (first, last, count), both ends included, without gaps; one ends at the limit if counts exceed it."""
    longest = max(counts)
    below = min(longest, limit)
    edges = [*list(range(0, below, -(-below // _BINS))), below]
    if longest > limit:
        edges += [*list(range(limit, longest, -(-(longest - limit) // 2)))[1:], longest]
    return tuple(
        (low + 1, high, sum(low < count <= high for count in counts)) for low, high in itertools.pairwise(edges)
    )


def _cut(
    tokenizer: Tokenizer, key: str, text: str, count: int, limit: int, rows: Sequence[str], elsewhere: Sequence[str]
) -> Finding:
    at = tokenizer.cut(text, limit)
    assert at is not None
    before = ("…" if at > _AROUND else "") + text[max(0, at - _AROUND) : at]
    after = text[at : at + _AROUND] + ("…" if len(text) > at + _AROUND else "")
    return finding(
        "cut_caption",
        rows[0],
        f"{key}: {count} tokens, limit {limit}, {count - limit} are cut: {before!r} | {after!r}",
        advice=f"nothing, if {' and '.join(elsewhere)} is enough: it has the whole text" if elsewhere else None,
        level="note" if elsewhere else None,
        others=tuple(rows[1:]),
    )
