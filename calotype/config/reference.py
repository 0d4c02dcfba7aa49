"""The schema of a config for editors and for people: a JSON Schema, and the tables of `docs/config.md`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

from pydantic.fields import FieldInfo

from calotype.config.config import Config
from calotype.config.errors import section_of
from calotype.config.section import Section

__all__ = ["json_schema", "key_tables"]

_DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of a config file."""
    schema = Config.model_json_schema()
    return {"$schema": _DIALECT, "title": "calotype config"} | {k: v for k, v in schema.items() if k != "title"}


def key_tables() -> str:
    """Return the tables of keys as Markdown: one of the top, one of each section."""
    return "\n".join(_tables())


def _tables() -> Iterator[str]:
    yield from _table(Config, "")
    for name in Config.sections:
        section = section_of(Config.model_fields[name].annotation)
        assert section is not None
        yield ""
        yield f"### `{name}`"
        yield ""
        yield from _table(section, "")


def _table(section: type[Section], above: str) -> Iterator[str]:
    if not above:
        yield "| key | default | meaning |"
        yield "|---|---|---|"
    for name, field in section.model_fields.items():
        yield f"| `{above}{name}` | {_default(field)} | {_cell(field.description or '')} |"
        inner = section_of(field.annotation)
        if inner is not None and section is not Config:
            yield from _table(inner, f"{above}{name}.")


def _default(field: FieldInfo) -> str:
    if field.is_required() or field.default is None:
        return ""
    default = list(field.default) if isinstance(field.default, tuple) else field.default
    return f"`{json.dumps(default, ensure_ascii=False)}`"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
