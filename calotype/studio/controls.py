"""The controls of the augmentation panel, derived from the schema of the config: a new option needs no change here."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

from pydantic.fields import FieldInfo

from calotype.config.errors import section_of
from calotype.config.expected import expected
from calotype.config.meanings import meanings
from calotype.config.section import Section

__all__ = ["controls_of"]

_TRUE_IS: Final = re.compile(r"true is ([\d.]+)")
_MAX_SLIDER: Final = 1000
"""A number without a smaller maximum is one that slides from 0 to 1: the factors of `color_jitter`."""

Schema = dict[str, Any]


def controls_of(section: type[Section]) -> list[dict[str, Any]]:
    """Return a control for each option of a section that a form can set.

    Each has `path` (its keys), `label`, `help`, `default` and `kind`:

    - `slider`: a number, with `max`, `step`, and `true` if true stands for a number;
    - `count`: a whole number from 0;
    - `size`: one whole number or two;
    - `range`: two parts of 1, the smaller first;
    - `choice`: one of `choices`;
    - `text`;
    - `tick`: true or false; with `section` true: also what its own options are in, which follow it.
    """
    return list(_controls(section, ()))


def _controls(section: type[Section], above: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    properties: dict[str, Schema] = section.model_json_schema()["properties"]
    for name, field in section.model_fields.items():
        schema, inner = properties[name], section_of(field.annotation)
        kinds = schema.get("anyOf", [schema])
        common = {
            "path": [*above, name],
            "label": name.replace("_", " ").capitalize(),
            "help": " ".join(meanings(section).get(name, "").split()),
            "default": schema.get("default"),
        }
        if inner is not None:
            if any(kind.get("type") == "boolean" for kind in kinds):
                yield common | {"kind": "tick", "section": True}
            yield from _controls(inner, (*above, name))
        elif (control := _control(kinds, field)) is not None:
            yield common | control


def _control(kinds: list[Schema], field: FieldInfo) -> dict[str, Any] | None:
    """Return the kind of a control with what it needs; None for code."""
    by_type = {kind.get("type", ""): kind for kind in reversed(kinds)}
    pair = by_type.get("array", {})
    if "number" in by_type:
        most = by_type["number"].get("maximum", _MAX_SLIDER)
        most = most if most < _MAX_SLIDER else 1
        true = _TRUE_IS.search(expected(field.annotation, field.metadata))
        step = 0.01 if most <= 1 else 0.5
        return {"kind": "slider", "max": most, "step": step} | ({"true": float(true[1])} if true else {})
    if "integer" in by_type:
        return {"kind": "size" if pair else "count"}
    if pair.get("items", {}).get("type") == "number" and pair.get("maxItems") == 2:
        return {"kind": "range"}
    if "string" in by_type:
        choices = by_type["string"].get("enum")
        return {"kind": "choice", "choices": choices} if choices else {"kind": "text"}
    return {"kind": "tick", "section": False} if "boolean" in by_type else None
