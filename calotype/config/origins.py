"""Where each value of a config came from: a line of the file, the command line, or a default."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal

from calotype.config.component import Component
from calotype.config.config import Config
from calotype.config.derived import derivation
from calotype.config.load import is_config_file, read_text, read_traced
from calotype.config.output_dir import default_output
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
    derived: str | None = None
    """How a default that is no constant is found, in words."""

    @property
    def place(self) -> str:
        """The origin in words."""
        if self.origin == "file":
            return f"{self.file}:{self.line}"
        return f"default: {self.derived}" if self.derived else self.origin

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
    settings = [_setting(*leaf, lines, overridden, str(source)) for leaf in _leaves(config, "")]
    return [_with_folder(one, config, source) if one.key == "train.output_dir" else one for one in settings]


def _with_folder(setting: Setting, config: Config, source: str | Path) -> Setting:
    """The setting of a run's folder, with its default as `calotype train` finds it."""
    if setting.derived is None or config.train is None:
        return setting
    name = Path(source).stem if is_config_file(source) else None
    return replace(setting, value=default_output(config, name, method=config.train.method))


def _setting(
    key: str,
    value: Any,
    given: bool,
    derived: str | None,
    lines: Mapping[str, int],
    overridden: Sequence[str],
    file: str,
) -> Setting:
    above = _and_above(key)
    if any(one in overridden for one in above):
        return Setting(key=key, value=value, origin="command line")
    line = next((lines[one] for one in above if one in lines), None)
    if not given or line is None:
        return Setting(key=key, value=value, origin="default", derived=derived)
    return Setting(key=key, value=value, origin="file", file=file, line=line)


def _and_above(key: str) -> list[str]:
    """A dotted key and the keys that hold it, the nearest first."""
    parts = key.split(".")
    return [".".join(parts[:length]) for length in range(len(parts), 0, -1)]


def _leaves(
    value: Any, key: str, *, given: bool = True, derived: str | None = None
) -> Iterator[tuple[str, Any, bool, str | None]]:
    """The values below a key: dotted key, value, whether it was given, how its default is found."""
    if isinstance(value, Component):
        value = value.mapping
    if isinstance(value, Section):
        fields = {name: getattr(value, name) for name in value.names()} | (value.model_extra or {})
        known = value.given()
        for name, inner in fields.items():
            if not key and inner is None:
                continue  # a section that the config does not have
            field = type(value).model_fields.get(name)
            words = derivation(field) if field is not None else None
            yield from _leaves(inner, f"{key}.{name}" if key else name, given=name in known, derived=words)
    elif isinstance(value, Mapping) and value:
        for name, inner in value.items():
            yield from _leaves(inner, f"{key}.{name}", given=given)
    else:
        yield key, value, given, derived


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
