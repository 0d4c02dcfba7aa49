"""`TokenCounter`: token counts of captions with the model's tokenizers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from calotype.config import Config
from calotype.errors import MissingTokenizerError
from calotype.models import TokenTransform, build_model_transform, get_spec

__all__ = ["TokenCounter", "token_counter"]


class TokenCounter:
    """Counts tokens. Thread-safe.

    Args:
        transform: Has the tokenizers; None: nothing is counted.
        note: Why there are no tokenizers; None if there are.
    """

    def __init__(self, transform: TokenTransform | None, *, note: str | None = None) -> None:
        self.note = note
        self._fields = () if transform is None else transform.fields

    @property
    def keys(self) -> tuple[str, ...]:
        """Keys of the tokenizers (`clip`, `t5`), in the order of the counts."""
        return tuple(field.spec.name for field in self._fields)

    @property
    def limits(self) -> tuple[int, ...]:
        """Maximum length of each tokenizer, with special tokens."""
        return tuple(field.max_length for field in self._fields)

    def counts(self, texts: Sequence[str]) -> list[tuple[int, ...]]:
        """Return the counts of each text by tokenizer, with special tokens."""
        texts = [_whole(text) for text in texts]
        columns = [field.tokenizer.counts(texts) for field in self._fields]
        return list(zip(*columns, strict=True)) if columns else [()] * len(texts)

    def cuts(self, text: str) -> tuple[int | None, ...]:
        """Return the index of the first character that each tokenizer truncates; None if the text fits."""
        text = _whole(text)
        return tuple(field.tokenizer.cut(text, field.max_length) for field in self._fields)


def _whole(text: str) -> str:
    """Replace lone surrogates, which tokenizers reject."""
    return text.encode("utf-8", "replace").decode("utf-8")


def token_counter(config: Config) -> TokenCounter:
    """Return a counter with the available tokenizers of a config's dataset.

    Args:
        config: The config.

    Raises:
        ConfigError: The configured model or folder of tokenizers is invalid.
    """
    if config.tokenizer is not None:
        transform = config.tokenizer.build(where="tokenizer")
        if isinstance(transform, TokenTransform):
            return TokenCounter(transform)
        return TokenCounter(None, note="The config's `tokenizer` has no tokens to count.")
    model, tokenizers = config.any_model, config.any_tokenizers
    if model is None:
        return TokenCounter(None, note="To count tokens, set --model (flux.1-dev, sdxl, …).")
    if Path(model).expanduser().is_dir():
        from calotype.encodings.frozen import FrozenModels

        tokenizers, model = tokenizers or model, FrozenModels(model).spec.name
    spec = get_spec(model)
    if not spec.tokenizers:
        return TokenCounter(None, note=f"Tokens are not counted: calotype has no token transform for {spec.name}.")
    try:
        transform = build_model_transform(model, tokenizers=tokenizers)
    except MissingTokenizerError as error:
        if tokenizers is not None:
            raise  # the configured path is wrong
        return TokenCounter(None, note=f"Tokens are not counted: {error}")
    assert isinstance(transform, TokenTransform)
    return TokenCounter(transform)
