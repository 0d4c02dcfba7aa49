"""`Sampling`: the sampling parameters of every backend, and when to retry with other ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from calotype.captioning.backend import CaptionAnswer
from calotype.errors import ConfigError

__all__ = ["MORE_TOKENS", "VARIED", "Sampling"]

MORE_TOKENS: Final = 4
"""Factor on `max_tokens` for the retry of an answer that was cut off."""

VARIED: Final = 0.7
"""Default temperature where captions of the same image and prompt must differ."""

_OTHER_SEED: Final = 1 << 20
"""Offset of the seed of a retry: larger than any number of captions per prompt."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sampling:
    """Sampling parameters.

    Raises:
        ConfigError: A value out of its range.
    """

    max_tokens: int = 512
    """Maximum tokens of an answer."""
    temperature: float = 0.0
    """0 is greedy decoding; 1 samples the model's own probabilities."""
    top_p: float | None = None
    """Samples only from the most likely tokens that together have this probability. None: from all (or the server's
    default)."""

    def __post_init__(self) -> None:
        if isinstance(self.max_tokens, bool) or not isinstance(self.max_tokens, int) or self.max_tokens < 1:
            raise ConfigError(f"max_tokens: a whole number above 0 was expected, found {self.max_tokens!r}")
        if isinstance(self.temperature, bool) or not (
            isinstance(self.temperature, int | float) and 0 <= self.temperature <= 2
        ):
            raise ConfigError(f"temperature: a number from 0 to 2 was expected, found {self.temperature!r}")
        if self.top_p is not None and not (isinstance(self.top_p, int | float) and 0 < self.top_p <= 1):
            raise ConfigError(f"top_p: a number above 0 and up to 1 was expected, found {self.top_p!r}")

    @property
    def parameters(self) -> dict[str, Any]:
        """The parameters as requests and `CaptionBackend.parameters` name them."""
        named = {"max_tokens": self.max_tokens, "temperature": float(self.temperature)}
        return named if self.top_p is None else named | {"top_p": float(self.top_p)}

    def retry(self, answer: CaptionAnswer, seed: int) -> tuple[int, int] | None:
        """Return (max_tokens, seed) of a retry; None for no retry.

        An answer that was cut off gets more tokens; one without a caption gets another seed, above temperature 0.
        """
        if answer.finish_reason == "length" and answer.kind in ("cut_off", "reasoning"):
            return self.max_tokens * MORE_TOKENS, seed
        if answer.kind in ("empty", "reasoning") and self.temperature > 0:
            return self.max_tokens, seed + _OTHER_SEED
        return None
