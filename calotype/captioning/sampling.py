"""`Sampling`: how a model's words are chosen, the same for every backend; and when it is worth asking a second time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from calotype.captioning.backend import CaptionAnswer
from calotype.errors import ConfigError

__all__ = ["MORE_TOKENS", "Sampling"]

MORE_TOKENS: Final = 4
"""An answer that was cut off is asked for once more with so many times the tokens."""

_OTHER_SEED: Final = 1 << 20
"""How far a second draw's seed is from the first: further than anybody asks for captions of one prompt."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sampling:
    """How an answer is drawn.

    Raises:
        ConfigError: A value out of its range.
    """

    max_tokens: int = 512
    """Of an answer."""
    temperature: float = 0.0
    """0 always takes the likeliest token; 1 draws by the model's own probabilities."""
    top_p: float | None = None
    """Draws only among the likeliest tokens that together have this probability. None: among all (or as the server
    does by default)."""

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
        """As a request and a backend's `parameters` name them."""
        named = {"max_tokens": self.max_tokens, "temperature": float(self.temperature)}
        return named if self.top_p is None else named | {"top_p": float(self.top_p)}

    def second_try(self, answer: CaptionAnswer, seed: int) -> tuple[int, int] | None:
        """The (max_tokens, seed) to ask with once more, or None where the answer stands.

        More tokens help what was cut off; another draw helps what came out without a caption, if there are draws.
        """
        if answer.finish_reason == "length" and answer.kind in ("cut_off", "reasoning"):
            return self.max_tokens * MORE_TOKENS, seed
        if answer.kind in ("empty", "reasoning") and self.temperature > 0:
            return self.max_tokens, seed + _OTHER_SEED
        return None
