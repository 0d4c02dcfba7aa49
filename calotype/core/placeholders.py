"""Placeholders of the trigger in captions, in calotype's notation and those of other programs."""

from __future__ import annotations

import re
from typing import Final

__all__ = [
    "OTHER_PLACEHOLDERS",
    "PLACEHOLDER",
    "TRIGGER_PLACEHOLDERS",
    "fill_placeholders",
    "has_placeholder",
    "has_trigger",
    "other_placeholders",
    "trigger_count",
]

PLACEHOLDER: Final = "{trigger}"
"""Replaced by the trigger in captions and templates: another trigger then needs no new captions."""

_WORD: Final = r" *trigger(?:[ _-]?word)? *"
TRIGGER_PLACEHOLDERS: Final = rf"(?i:\{{\{{{_WORD}\}}\}}|\{{{_WORD}\}}|\[{_WORD}\]|<{_WORD}>)"
"""Regular expression (Python and RE2) of `{trigger}` and its equivalents in other programs: `[trigger]` of ai-toolkit,
…"""

_NAMES: Final = (
    "name|filewords|caption|embedding|placeholder|instance|concept|identifier|token|id_token|subject|keyword|activation|"
    "class|class[-_ ](?:word|name|token)|instance[-_ ](?:word|name|token|prompt)|trigger[-_ ](?:token|phrase)"
)
OTHER_PLACEHOLDERS: Final = (
    rf"(?i:\[(?:{_NAMES})\]|\{{(?:{_NAMES})\}}|<(?:embedding|placeholder|token|id_token)>|%{_WORD}%|\$\{{?{_WORD}\}}?)"
)
"""Regular expression of other programs' placeholders without an equivalent here, which are not replaced: `[name]` and
`[filewords]` of stable-diffusion-webui, …"""

_TRIGGERS: Final = re.compile(TRIGGER_PLACEHOLDERS)
_OTHERS: Final = re.compile(OTHER_PLACEHOLDERS)


def has_placeholder(text: str) -> bool:
    """Return whether a text has a placeholder of the trigger."""
    return _TRIGGERS.search(text) is not None


def fill_placeholders(text: str, trigger: str) -> str:
    """Return a text with its placeholders replaced by the trigger."""
    return _TRIGGERS.sub(lambda _: trigger, text)


def other_placeholders(text: str) -> list[str]:
    """Return the placeholders in a text that only other programs replace, each once."""
    return list(dict.fromkeys(match[0] for match in _OTHERS.finditer(text)))


def has_trigger(text: str, trigger: str) -> bool:
    """Return whether a text has the trigger as whole words, ignoring case."""
    return trigger_count(text, trigger) > 0


def trigger_count(text: str, trigger: str) -> int:
    """Return how often a text has the trigger as whole words, ignoring case."""
    return len(re.findall(rf"(?<!\w){re.escape(trigger)}(?!\w)", text, re.IGNORECASE))
