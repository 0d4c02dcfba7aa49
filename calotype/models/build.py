"""Build a model's transform from the model's name, with tokenizers from a folder or the hub."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from calotype.errors import ConfigError, MissingTokenizerError, unknown_key
from calotype.models.registry import get_family, get_spec
from calotype.models.spec import ModelSpec, check_max_seq_len
from calotype.models.tokenizer_files import is_hub_name, tokenizers_download
from calotype.models.transform import TokenTransform, paths_by_option
from calotype.types import ModelTransform

__all__ = ["build_model_transform", "check_model_transform"]


def build_model_transform(
    model: str, *, tokenizers: str | Path | Mapping[str, str | Path] | None = None, **options: Any
) -> ModelTransform:
    """Build the transform of a model; its spec has the defaults.

    Args:
        model: A name for `get_spec`.
        tokenizers: A folder or hub repository with the subfolders of a saved pipeline (`tokenizer`, `tokenizer_2`, …);
            for a model with one tokenizer, also that tokenizer's own folder; a mapping of the transform's options to
            paths; or None for the model's own hub repository (the local cache first).
        **options: Caption lengths that differ from the spec's: `t5_max_seq_len`.

    Raises:
        MissingTokenizerError: Tokenizers are missing; the message names them and says how to get them.
        ConfigError: The model is unknown, or does not take an option.
    """
    spec = get_spec(model)
    lengths = [one.length_option for one in spec.tokenizers if one.length_option]
    for option, value in options.items():
        if option not in lengths:
            raise unknown_key(f"options of {spec.name}", option, lengths)
        check_max_seq_len(spec, option, value)
    # Options are checked first, so that a wrong one is never reported as a missing tokenizer.
    defaults = {one.length_option: one.max_length for one in spec.tokenizers if one.length_option}
    paths = _paths(spec, tokenizers, asked_for=model)
    transform = get_family(spec.family).transform_class
    if transform is TokenTransform:
        return TokenTransform(spec, paths, **(defaults | options))
    return transform(**paths, **(defaults | options))


def check_model_transform(model: str, transform: ModelTransform) -> None:
    """Refuse a transform that does not fit a model.

    Raises:
        ConfigError: It is another family's, or its caption length is more than the model takes; names both.
    """
    spec = get_spec(model)
    if not isinstance(transform, TokenTransform):
        return
    expected = get_family(spec.family).transform_class
    if not isinstance(transform, expected) or transform.spec.family != spec.family:
        raise ConfigError(f"model_transform: {spec.name} takes {expected.__name__}, found {type(transform).__name__}")
    for field in transform.fields:
        if field.spec.length_option is not None:
            check_max_seq_len(spec, field.spec.length_option, field.max_length)


def _paths(
    spec: ModelSpec, tokenizers: str | Path | Mapping[str, str | Path] | None, *, asked_for: str
) -> dict[str, str | Path]:
    """Return the path of each tokenizer, by the transform's option."""
    names = [one.option for one in spec.tokenizers]
    if isinstance(tokenizers, Mapping):
        tokenizers = paths_by_option(spec, tokenizers)
        for option in tokenizers:
            if option not in names:
                raise unknown_key(f"tokenizers of {spec.name}", option, names)
        lacking = [option for option in names if option not in tokenizers]
        if lacking:
            raise MissingTokenizerError(f"tokenizers of {spec.name}: {', '.join(lacking)} not given; {_ways(spec)}")
        return tokenizers
    if tokenizers is not None and Path(tokenizers).expanduser().exists():
        return _in_folder(spec, Path(tokenizers).expanduser())
    if tokenizers is not None and not is_hub_name(tokenizers):
        raise MissingTokenizerError(f"tokenizers of {spec.name}: no such folder: {tokenizers}; {_ways(spec)}")
    repo = str(tokenizers) if tokenizers is not None else _repository(spec, asked_for)
    return {one.option: f"{repo}:{one.subfolder}" for one in spec.tokenizers}


def _in_folder(spec: ModelSpec, folder: Path) -> dict[str, str | Path]:
    """Return the path of each tokenizer in a pipeline's folder, by the transform's option."""
    if len(spec.tokenizers) == 1 and not (folder / spec.tokenizers[0].subfolder).exists():
        return {spec.tokenizers[0].option: folder}
    lacking = [one.subfolder for one in spec.tokenizers if not (folder / one.subfolder).is_dir()]
    if lacking:
        wanted = ", ".join(f"{one.subfolder}/ ({one.kind})" for one in spec.tokenizers)
        raise MissingTokenizerError(
            f"tokenizers of {spec.name}: {folder} has no folder {', '.join(lacking)}; expected {wanted}, "
            f"or a mapping of {', '.join(one.option for one in spec.tokenizers)} to paths; {_ways(spec)}"
        )
    return {one.option: folder / one.subfolder for one in spec.tokenizers}


def _repository(spec: ModelSpec, asked_for: str) -> str:
    """Return the repository that the user named, or the model's first."""
    return next((name for name in spec.hub if name.lower() == asked_for.lower()), spec.hub[0])


def _ways(spec: ModelSpec) -> str:
    """Return how to get a model's tokenizers, as the end of an error message."""
    return tokenizers_download(spec.hub[0], [one.subfolder for one in spec.tokenizers])
