"""The options of `load_manifest` and `open_captions`, checked once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, TypedDict

from calotype.errors import ConfigError
from calotype.ledger import Ledger
from calotype.manifest.exclude import parse_exclude
from calotype.manifest.folders.caption_files import parse_caption_suffix
from calotype.manifest.paths import PathLike, absolute
from calotype.manifest.readers.dialect import parse_delimiter
from calotype.manifest.readers.member_keys import parse_member_key
from calotype.manifest.reading import MemberKey, Reading
from calotype.manifest.tables.columns import ColumnMap, parse_column_map

__all__ = ["ManifestOptions", "one_of", "parse_choice", "parse_options"]


class ManifestOptions(TypedDict, total=False):
    """The options of `load_manifest` that a dataset passes on to it."""

    columns: ColumnMap | None
    column_map: ColumnMap | None
    split: str | None
    root: PathLike | None
    image_dir: PathLike | None
    recursive: bool
    exclude: str | Sequence[str] | None
    caption_lines: Literal["one", "many"] | None
    caption_suffix: str | Sequence[str] | None
    delimiter: str | None
    member_key: MemberKey
    validation: float
    validation_seed: int
    data_files: Any
    keep_rejected: bool


def parse_options(
    common_root: Path,
    *,
    columns: ColumnMap | None,
    root: PathLike | None,
    recursive: bool,
    exclude: str | Sequence[str] | None,
    caption_lines: str | None,
    caption_suffix: str | Sequence[str] | None,
    delimiter: str | None,
    need_captions: bool,
    skip: bool,
    ledger: Ledger,
    member_key: MemberKey = "auto",
    split: str | None = None,
    keep_rejected: bool = False,
    columns_option: str = "columns",
) -> Reading:
    """Check the options of one call; `load_manifest` and `Reading` document them.

    Raises:
        ConfigError: An option has a wrong value.
    """
    if caption_lines is not None:
        parse_choice("caption_lines", caption_lines, ("one", "many"))
    image_root = absolute(root) if root is not None else None
    if image_root is not None and not image_root.is_dir():
        raise ConfigError(f"root: there is no folder {image_root}")
    return Reading(
        root=image_root or common_root,
        common_root=common_root,
        image_root=image_root,
        columns=parse_column_map(columns, columns_option),
        need_captions=need_captions,
        recursive=recursive,
        exclude=parse_exclude(exclude),
        many_lines=None if caption_lines is None else caption_lines == "many",
        caption_suffixes=parse_caption_suffix(caption_suffix),
        delimiter=parse_delimiter(delimiter),
        member_key=parse_member_key(member_key),
        split=split,
        skip=skip,
        keep_rejected=keep_rejected,
        ledger=ledger,
    )


def one_of(name: str, value: Any, alias: str, other: Any) -> Any:
    """Return the value of an option that has two names.

    Raises:
        ConfigError: Both are set.
    """
    if value is not None and other is not None:
        raise ConfigError(f"{name} and {alias} mean the same; give one of them (found {value!r} and {other!r})")
    return value if value is not None else other


def parse_choice(name: str, value: object, choices: Sequence[str]) -> None:
    """Check an option that has one of a few values.

    Raises:
        ConfigError: It has another one.
    """
    if value not in choices:
        raise ConfigError(f"{name}: found {value!r}; expected {' or '.join(map(repr, choices))}")
