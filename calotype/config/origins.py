"""Where each value of a config came from: a line of the file, the command line, or a default."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal

from calotype.config.component import Component
from calotype.config.config import Config
from calotype.config.load import is_config_file, read_text, read_traced
from calotype.config.section import Section

__all__ = ["Setting", "list_settings"]

_ALWAYS: Final = ("dataset", "loader")
"""Sections whose defaults count even where the config has none of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One value of a resolved config."""

    key: str
    """Dotted."""
    value: Any
    origin: Literal["file", "command line", "default"]
    file: str | None = None
    line: int | None = None
    """Of the file, from 1."""

    @property
    def place(self) -> str:
        """The origin in words."""
        return f"{self.file}:{self.line}" if self.origin == "file" else self.origin

    def to_json(self) -> dict[str, Any]:
        """The setting as plain values."""
        return asdict(self)


def list_settings(source: str | Path, overrides: Sequence[str] = ()) -> list[Setting]:
    """List the values of a config with where each came from: those of its sections, with their defaults.

    Args:
        source: As for `load_config`.
        overrides: As for `load_config`.

    Raises:
        ConfigError: As for `read_config`.
    """
    mapping, overridden = read_traced(source, overrides)
    config = Config.parse(mapping)
    config = config.updated(**{name: {} for name in _ALWAYS if getattr(config, name) is None})
    lines: dict[str, int] = {}
    if is_config_file(source):
        lines = _lines(read_text(Path(source).expanduser()))
    else:
        overridden = [*overridden, "dataset.path"]
    return [_setting(key, value, given, lines, overridden, str(source)) for key, value, given in _leaves(config, "")]


def _setting(
    key: str, value: Any, given: bool, lines: Mapping[str, int], overridden: Sequence[str], file: str
) -> Setting:
    above = _and_above(key)
    if any(one in overridden for one in above):
        return Setting(key=key, value=value, origin="command line")
    line = next((lines[one] for one in above if one in lines), None)
    if not given or line is None:
        return Setting(key=key, value=value, origin="default")
    return Setting(key=key, value=value, origin="file", file=file, line=line)


def _and_above(key: str) -> list[str]:
    """A dotted key and the keys that hold it, the nearest first."""
    parts = key.split(".")
    return [".".join(parts[:length]) for length in range(len(parts), 0, -1)]


def _leaves(value: Any, key: str, *, given: bool = True) -> Iterator[tuple[str, Any, bool]]:
    """The values below a key: dotted key, value, whether it was given."""
    if isinstance(value, Component):
        value = value.mapping
    if isinstance(value, Section):
        fields = {name: getattr(value, name) for name in value.names()} | (value.model_extra or {})
        known = value.given()
        for name, inner in fields.items():
            if not key and inner is None:
                continue  # a section that the config does not have
            yield from _leaves(inner, f"{key}.{name}" if key else name, given=name in known)
    elif isinstance(value, Mapping) and value:
        for name, inner in value.items():
            yield from _leaves(inner, f"{key}.{name}", given=given)
    else:
        yield key, value, given


def _lines(text: str) -> dict[str, int]:
    """The line of each dotted key of a YAML text."""
    import yaml

    found: dict[str, int] = {}

    def walk(node: Any, above: str) -> None:
        if not isinstance(node, yaml.MappingNode):
            return
        for name, value in node.value:
            if name.tag == "tag:yaml.org,2002:merge":  # `<<: *anchor`: its keys are written elsewhere
                for one in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                    walk(one, above)
                continue
            key = f"{above}.{name.value}" if above else str(name.value)
            found[key] = name.start_mark.line + 1
            walk(value, key)

    walk(yaml.compose(text, Loader=yaml.SafeLoader), "")
    return found
