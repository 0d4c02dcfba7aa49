"""The keys at the top of a config: which are ours, and which look like slips of ours."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from typing import Any, Final

from calotype.config.instantiate import COMPONENT
from calotype.errors import ConfigError, unknown_key

__all__ = ["KEYS", "LOOKS_LIKE", "THEIRS", "check_keys", "check_seeds"]

KEYS: Final = ("dataset", "distill", "encodings", "loader", "model", "tokenizer", "tokenizers", "train")
THEIRS: Final = ("trainer",)
"""What looks like one of ours and is none: Lightning's."""

LOOKS_LIKE: Final = 0.8
"""How near (difflib's ratio) an unknown key must be to one of ours to count as a slip: `datset`, `loadr`."""


def check_keys(config: Collection[str], where: str) -> None:
    """Refuses a key that looks like one of ours which is absent; the other keys are the trainer's."""
    absent = [key for key in KEYS if key not in config]
    for key in config:
        if key not in (*KEYS, *THEIRS) and difflib.get_close_matches(str(key), absent, n=1, cutoff=LOOKS_LIKE):
            raise unknown_key(where, key, KEYS)


def check_seeds(config: Mapping[str, Any], where: str) -> None:
    """Refuses two seeds of one run: a loader draws everything by its own, and its dataset's would be ignored."""
    sections = [config.get(name) for name in ("dataset", "loader")]
    seeds = [_seed(one) for one in sections]
    if None not in seeds and seeds[0] != seeds[1]:
        raise ConfigError(
            f"{where}: dataset.seed is {seeds[0]!r} and loader.seed is {seeds[1]!r}; every draw follows from the "
            "loader's, so keep one of them (seed=… sets both)"
        )


def _seed(section: Any) -> Any:
    return section.get("seed") if isinstance(section, Mapping) and COMPONENT not in section else None
