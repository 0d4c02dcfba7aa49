"""The schema of a config for editors and for people: a JSON Schema, and the tables of `docs/config.md`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Final

from calotype.config.config import Config
from calotype.config.derived import derivation
from calotype.config.errors import section_of
from calotype.config.expected import expected
from calotype.config.meanings import meanings
from calotype.config.section import Section
from calotype.errors import ConfigError, nearest, or_list

__all__ = ["Key", "json_schema", "key_tables", "list_keys"]

_DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """One key of a config."""

    key: str
    """Dotted."""
    default: Any
    """None where it has none of its own, or a derived one."""
    expected: str
    """What its value may be, in words; empty where that is a mapping of further keys."""
    meaning: str
    derived: str | None = None
    """How a default that is no constant is found, in words."""

    def to_json(self) -> dict[str, Any]:
        """The key as plain values."""
        return asdict(self)


def list_keys(section: str | None = None) -> list[Key]:
    """List the keys of a section with those inside it, or those at the top of a config.

    Args:
        section: Its name, dotted for a part of one: `train`, `dataset.fetch`. None is the top.

    Raises:
        ConfigError: There is no such section.
    """
    current: type[Section] = Config
    above = ""
    for name in section.split(".") if section else ():
        sections = {key: section_of(field.annotation) for key, field in current.model_fields.items()}
        known = [key for key, inner in sections.items() if inner is not None]
        if name not in known:
            near = nearest(name, known)
            hint = f"; did you mean {or_list(near)}?" if near else ""
            holder = above or "a config"
            raise ConfigError(f"{holder} has no section {name!r}{hint} (known: {', '.join(known)})")
        inner = sections[name]
        assert inner is not None
        current, above = inner, f"{above}.{name}" if above else name
    return list(_keys(current, f"{above}." if above else ""))


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of a config file."""
    schema = Config.model_json_schema()
    sections: list[type[Section]] = [Config, *_sections(Config)]
    for section in sections:
        properties = (schema if section is Config else schema["$defs"][section.__name__])["properties"]
        for name, text in meanings(section).items():
            shown = {**properties[name], "description": text}
            if name in section.defaults_if_null() or section.model_fields[name].default is None:
                shown = _or_null(shown)
            if (derived := derivation(section.model_fields[name])) is not None:
                shown.pop("default", None)
                shown["description"] = f"{text} Default: {derived}."
            properties[name] = dict(sorted(shown.items()))
    return {"$schema": _DIALECT, "title": "calotype config"} | {k: v for k, v in schema.items() if k != "title"}


def _or_null(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of an option that may be null, too, which is its default then."""
    about = {key: value for key, value in schema.items() if key in ("default", "description", "title")}
    values = {key: value for key, value in schema.items() if key not in about}
    forms = values["anyOf"] if set(values) == {"anyOf"} else [values]
    null = {"type": "null"}
    return schema if null in forms or not values else {"anyOf": [*forms, null], **about}


def key_tables() -> str:
    """Return the tables of keys as Markdown: one of the top, one of each section."""
    return "\n".join(_tables())


def _tables() -> Iterator[str]:
    yield from _table(list_keys())
    for name in Config.sections:
        yield ""
        yield f"### `{name}`"
        yield ""
        yield from _table(list_keys(name), f"{name}.")


def _table(keys: list[Key], above: str = "") -> Iterator[str]:
    yield "| key | default | meaning |"
    yield "|---|---|---|"
    for key in keys:
        default = key.derived or ("" if key.default is None else f"`{json.dumps(key.default, ensure_ascii=False)}`")
        meaning = key.meaning.replace("|", "\\|")
        yield f"| `{key.key.removeprefix(above)}` | {default} | {meaning} |"


def _keys(section: type[Section], above: str) -> Iterator[Key]:
    for name, field in section.model_fields.items():
        derived = derivation(field)
        default = None if field.is_required() or derived else field.default
        yield Key(
            key=f"{above}{name}",
            default=list(default) if isinstance(default, tuple) else default,
            expected=expected(field.annotation, field.metadata),
            meaning=" ".join(meanings(section).get(name, "").split()),
            derived=derived,
        )
        inner = section_of(field.annotation)
        if inner is not None and section is not Config:
            yield from _keys(inner, f"{above}{name}.")


def _sections(section: type[Section]) -> Iterator[type[Section]]:
    """Yield the sections within a section, at any depth."""
    for field in section.model_fields.values():
        if (inner := section_of(field.annotation)) is not None:
            yield inner
            yield from _sections(inner)
