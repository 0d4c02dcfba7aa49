"""Placeholders in captions: where the trigger belongs, as we and other programs write it."""

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
"""What a caption or template has where the trigger belongs: so another trigger needs no new captions."""

_WORD: Final = r" *trigger(?:[ _-]?word)? *"
TRIGGER_PLACEHOLDERS: Final = rf"(?i:\{{\{{{_WORD}\}}\}}|\{{{_WORD}\}}|\[{_WORD}\]|<{_WORD}>)"
"""A regular expression (of Python, and of RE2) of it and of what other programs have: `[trigger]` of ai-toolkit, …"""

_NAMES: Final = (
    "name|filewords|caption|embedding|placeholder|instance|concept|identifier|token|id_token|subject|keyword|activation|"
    "class|class[-_ ](?:word|name|token)|instance[-_ ](?:word|name|token|prompt)|trigger[-_ ](?:token|phrase)"
)
OTHER_PLACEHOLDERS: Final = (
    rf"(?i:\[(?:{_NAMES})\]|\{{(?:{_NAMES})\}}|<(?:embedding|placeholder|token|id_token)>|%{_WORD}%|\$\{{?{_WORD}\}}?)"
)
"""Of other programs, with a meaning that only they know: `[name]` and `[filewords]` of stable-diffusion-webui, …"""

_TRIGGERS: Final = re.compile(TRIGGER_PLACEHOLDERS)
_OTHERS: Final = re.compile(OTHER_PLACEHOLDERS)


def has_placeholder(text: str) -> bool:
    """Whether the trigger belongs somewhere in a text."""
    return _TRIGGERS.search(text) is not None


def fill_placeholders(text: str, trigger: str) -> str:
    """The text with the trigger wherever it belongs."""
    return _TRIGGERS.sub(lambda _: trigger, text)


def other_placeholders(text: str) -> list[str]:
    """The placeholders of other programs in a text, each once."""
    return list(dict.fromkeys(match[0] for match in _OTHERS.finditer(text)))


def has_trigger(text: str, trigger: str) -> bool:
    """Whether a text has the trigger as whole words, whatever the case."""
    return trigger_count(text, trigger) > 0


def trigger_count(text: str, trigger: str) -> int:
    """How often it does."""
    return len(re.findall(rf"(?<!\w){re.escape(trigger)}(?!\w)", text, re.IGNORECASE))
