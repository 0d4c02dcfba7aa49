"""Findings about captions: empty, repeated, without the trigger, or with stock phrases of captioners."""

from __future__ import annotations

import re
import statistics
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from typing import Final

from calotype.check.report import CaptionFacts, Finding, finding
from calotype.check.tokens import longest_texts
from calotype.check.wording import odd_characters, opener, refusal
from calotype.core.placeholders import PLACEHOLDER, has_placeholder, has_trigger, other_placeholders, trigger_count
from calotype.data.dataset import TextToImageDataset
from calotype.models import Tokenizer, TokenTransform

__all__ = ["caption_findings", "likely_trigger"]

_SMALL: Final = 200
"""Maximum number of images for which a missing trigger is reported: few images likely teach one subject or style."""
_SHARE: Final = 0.6
"""Minimum share of the images whose captions contain a likely trigger."""
_AT_LEAST: Final = 3
_SHORT: Final = 60
"""Maximum characters of a caption that all images share and that is likely intended."""
_WORD: Final = re.compile(r"[^\W_][\w'-]*")

_COMMON: Final = frozenset({"sks", "ohwx", "zwx", "tok", "ukj", "xjw"})
"""Triggers that guides and trainers recommend."""
_NO_TRIGGER: Final = frozenset(
    "bmw brrr cctv dslr dvd grrr hdr hmm html http jpg kkk mph nft nsfw nyc png psst rgb rpg sdxl shh tsk vhs".split()  # noqa: SIM905
)
"""Words without a vowel that are not triggers."""
_VOWEL: Final = re.compile(r"[aeiouy]")
_MEASURE: Final = re.compile(r"\d+[a-z]{1,3}|[a-z]{1,4}-?\d+")  # 35mm, 1980s, f2, iso100


def caption_findings(
    dataset: TextToImageDataset, *, skip: Collection[int] = ()
) -> tuple[CaptionFacts | None, list[Finding]]:
    """Check the captions of the data, and for the trigger also the final texts.

    Args:
        dataset: Its captions and caption transform are checked.
        skip: Rows already reported as having no caption.

    Returns:
        The caption facts, None if there is no caption; and the findings.
    """
    # Empty captions, and images with several.
    rows: list[list[str]] = dataset.manifest.captions.to_pylist()
    ids: list[str] = dataset.manifest.ids.to_pylist()
    texts = [text for captions in rows for text in captions if text.strip()]
    findings = [
        finding("empty_caption", ids[row], "its caption is empty")
        for row, captions in enumerate(rows)
        if row not in skip and not any(text.strip() for text in captions)
    ]
    several = [row for row, captions in enumerate(rows) if len(captions) > 1]
    if several:
        most = max(len(rows[row]) for row in several)
        findings.append(
            finding(
                "several_captions",
                "",
                f"{len(several):,} of {len(rows):,} images have several captions, up to {most}",
                advice=f"nothing: `choose: {dataset.caption_transform.choose}` says which is taken each time",
            )
        )
    # Texts of the captions, and the trigger.
    findings += _repeated(rows, ids)
    findings += _wording(rows, ids)
    findings += _placeholders(rows, ids)
    trigger, count, about_trigger = _trigger(dataset, rows, ids)
    findings += about_trigger
    if not texts:
        return None, findings
    # Counts and lengths.
    lengths = sorted(map(len, texts))
    facts = CaptionFacts(
        captions=len(texts),
        images_without=sum(not any(text.strip() for text in captions) for captions in rows),
        images_with_several=len(several),
        distinct=len(set(texts)),
        characters=(lengths[0], round(statistics.median(lengths)), lengths[-1]),
        trigger=trigger,
        trigger_in=count,
    )
    return facts, findings


def _repeated(rows: Sequence[Sequence[str]], ids: Sequence[str]) -> Iterator[Finding]:
    where: dict[str, list[int]] = {}
    for row, captions in enumerate(rows):
        for text in dict.fromkeys(captions):
            if text.strip():
                where.setdefault(text, []).append(row)
    for text, owners in where.items():
        if len(owners) < 2:
            continue
        others = tuple(ids[row] for row in owners[1:])
        detail = f"{len(owners):,} of {len(rows):,} images have the caption {_short(text, 80)!r}"
        if len(owners) == len(rows) and len(text) <= _SHORT:
            yield finding(
                "repeated_caption",
                ids[owners[0]],
                detail,
                level="note",
                others=others,
                advice="nothing, if you teach one subject or style with one phrase; descriptions teach it more freely",
            )
        else:
            yield finding("repeated_caption", ids[owners[0]], detail, others=others)


def _wording(rows: Sequence[Sequence[str]], ids: Sequence[str]) -> Iterator[Finding]:
    for row, captions in enumerate(rows):
        for text in captions:
            if refusal(text):
                yield finding("refusal", ids[row], f"{_short(text)!r} is no caption")
            elif (phrase := opener(text)) is not None:
                yield finding("opener", ids[row], f"it begins with {phrase.strip()!r}: {_short(text)!r}")
            if odd := list(odd_characters(text)):
                yield finding("odd_characters", ids[row], "; ".join(odd))


def _placeholders(rows: Sequence[Sequence[str]], ids: Sequence[str]) -> Iterator[Finding]:
    """Find placeholders of other programs, which a model would learn literally."""
    holders: dict[str, list[int]] = {}
    for row, captions in enumerate(rows):
        for placeholder in dict.fromkeys(found for text in captions for found in other_placeholders(text)):
            holders.setdefault(placeholder, []).append(row)
    for placeholder, owners in holders.items():
        yield finding(
            "placeholder",
            "",
            f"{len(owners):,} of {len(rows):,} images have captions with {placeholder}, another program's placeholder",
            advice=f"write {PLACEHOLDER} where the trigger belongs, or what {placeholder} stands for",
            others=tuple(ids[row] for row in owners),
        )


def _trigger(
    dataset: TextToImageDataset, rows: Sequence[Sequence[str]], ids: Sequence[str]
) -> tuple[str | None, int, list[Finding]]:
    """Return the trigger, the number of images with it in their raw captions, and the findings."""
    transform = dataset.caption_transform
    if transform.trigger is not None:
        trigger = transform.trigger
        holders = sum(any(_holds(text, trigger) for text in captions) for captions in rows)
        return trigger, holders, list(_set_trigger(dataset, trigger, rows, ids))
    if waiting := [row for row, captions in enumerate(rows) if any(map(has_placeholder, captions))]:
        detail = f"{len(waiting):,} of {len(rows):,} images have captions with {PLACEHOLDER}, and no trigger is set"
        return None, 0, [finding("placeholder", "", detail, others=tuple(ids[row] for row in waiting))]
    word = likely_trigger(rows, _clip(dataset))
    if word is None:
        if len(rows) > _SMALL or transform.template or transform.custom:
            return None, 0, []
        return None, 0, [finding("no_trigger", "", "no rare word is in most of the captions")]
    without = [row for row, captions in enumerate(rows) if not all(has_trigger(text, word) for text in captions)]
    if not without:
        return word, len(rows), []
    detail = f"{word!r} is in the captions of {len(rows) - len(without):,} of {len(rows):,} images"
    missing = tuple(ids[row] for row in without)
    return word, len(rows) - len(without), [finding("trigger_missing", "", f"{detail}, not of these", others=missing)]


def _set_trigger(
    dataset: TextToImageDataset, trigger: str, rows: Sequence[Sequence[str]], ids: Sequence[str]
) -> Iterator[Finding]:
    """Check that the config's trigger is in every final text once: code may remove it, a caption may repeat it."""
    texts = longest_texts(dataset)
    lost = sorted({row for text, owners in texts.items() if not has_trigger(text, trigger) for row in owners})
    twice = sorted({row for text, owners in texts.items() if trigger_count(text, trigger) > 1 for row in owners})
    if lost:
        yield finding(
            "trigger_missing",
            "",
            f"the config's trigger {trigger!r} is lost on the way for {len(lost):,} of {len(rows):,} images",
            advice="look at caption_transform.custom and template: something takes it out",
            others=tuple(ids[row] for row in lost),
        )
    if twice:
        yield finding(
            "trigger_twice",
            "",
            f"{trigger!r} comes more than once in the text of {len(twice):,} of {len(rows):,} images",
            others=tuple(ids[row] for row in twice),
        )


def likely_trigger(rows: Sequence[Sequence[str]], clip: Tokenizer | None = None) -> str | None:
    """Return the likely trigger: a rare word in most images' captions; None without one.

    A word counts as rare if guides recommend it as a trigger (`sks`, `ohwx`, `TOK`), if it has no vowel, or if it has
    letters and digits (`p3rs0n`, but not `35mm`). With CLIP's tokenizer, a word that CLIP splits into several tokens
    also counts, if it is among the first three words of most images' captions. The config can set any other trigger.

    Args:
        rows: The captions of each image.
        clip: CLIP's tokenizer; None if the dataset has none.
    """
    counts: Counter[str] = Counter()
    leading: Counter[str] = Counter()
    for captions in rows:
        found = [_WORD.findall(text) for text in captions]
        counts.update({word for words in found for word in words})
        leading.update({word for words in found for word in words[:3]})
    enough = max(_AT_LEAST, _SHARE * len(rows))
    for word, count in counts.most_common():
        if count < enough:
            return None
        if 3 <= len(word) <= 24 and (_odd(word.lower()) or (leading[word] >= enough and _rare(word, clip))):
            return word
    return None


def _odd(word: str) -> bool:
    if word in _COMMON:
        return True
    if word in _NO_TRIGGER or not word.isascii() or not word.isalnum() or word.isdigit():
        return False
    if word.isalpha():
        return _VOWEL.search(word) is None
    return _MEASURE.fullmatch(word) is None


def _rare(word: str, clip: Tokenizer | None) -> bool:
    if clip is None or not word.isascii() or not word.isalpha():
        return False
    return sum(piece.kind == "text" for piece in clip.pieces(word, 77)) > 1


def _clip(dataset: TextToImageDataset) -> Tokenizer | None:
    transform = dataset.model_transform
    fields = transform.fields if isinstance(transform, TokenTransform) else ()
    return next((field.tokenizer for field in fields if field.spec.kind == "clip"), None)


def _holds(text: str, trigger: str) -> bool:
    return has_placeholder(text) or has_trigger(text, trigger)


def _short(text: str, limit: int = 60) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"
