"""`Section`: what every section of a config is, and the types that their options share."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from numbers import Number
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, WithJsonSchema, model_validator

from calotype.config.component import Component
from calotype.config.errors import config_error
from calotype.config.expected import Expected

__all__ = ["Count", "CountOrZero", "PathText", "Rate", "Section", "Text", "Texts", "plain"]

Count = Annotated[int, Field(ge=1), Expected("a whole number, 1 or more")]
CountOrZero = Annotated[int, Field(ge=0), Expected("a whole number, 0 or more")]
Rate = Annotated[
    float,
    Field(ge=0, allow_inf_nan=False),
    Expected("a number, 0 or more (YAML reads 1e-4 as text: write 1.0e-4)"),
]
Text = Annotated[str, Field(min_length=1), Expected("a text")]
Texts = Annotated[Sequence[str], Expected("a list of texts")]
PathText = Annotated[str | Path, Expected("a path"), WithJsonSchema({"type": "string"})]


class Section(BaseModel):
    """Options that belong together, checked.

    A subclass has one field an option; the text under a field is its documentation, in `docs/config.md` and in the
    JSON Schema.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        arbitrary_types_allowed=True,
        allow_inf_nan=True,
        defer_build=True,
    )
    name: ClassVar[str] = ""
    """The section's key in a config; empty for the whole config and for options within a section."""
    example: ClassVar[str] = "…"
    """What an error shows of a section that is no mapping."""
    null_is_default: ClassVar[Collection[str] | None] = None
    """The options that have their default where they are null; None is all."""
    component: ClassVar[str | None] = None
    """The public class or function whose options these are, as an error calls it."""

    @classmethod
    def of(cls, options: Mapping[str, Any], *, where: str | None = None) -> Self:
        """Check options as YAML or a caller gives them.

        Args:
            options: The options by name.
            where: What errors call the section; `name` by default.

        Raises:
            ConfigError: An option is unknown (names the nearest) or has a value that can't be.
        """
        try:
            return cls.model_validate(plain(options))
        except ValidationError as error:
            raise config_error(error, cls, options, cls.name if where is None else where) from None

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """Return the names of the options."""
        return tuple(cls.model_fields)

    @classmethod
    def defaults_if_null(cls) -> set[str]:
        """Return the names of the options for which null, which is no value of theirs, means the default."""
        names = cls.names() if cls.null_is_default is None else cls.null_is_default
        fields = cls.model_fields
        return {name for name in names if not fields[name].is_required() and fields[name].default is not None}

    def given(self) -> dict[str, Any]:
        """Return the options that were given, by name; the others have their defaults."""
        return {name: getattr(self, name) for name in type(self).model_fields if name in self.model_fields_set}

    def to_mapping(self) -> dict[str, Any]:
        """Return the options as YAML has them: what was given, without defaults."""
        return {name: _as_yaml(value) for name, value in self.given().items()}

    def updated(self, **options: Any) -> Self:
        """Return a copy with other options, checked anew."""
        return self.of(self.given() | options)

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, options: Any) -> Any:
        """An option that is null where null is no value has its default, as far as `null_is_default` says so."""
        if not isinstance(options, Mapping):
            return options
        values = cls.defaults_if_null()
        return {name: value for name, value in options.items() if value is not None or name not in values}


def _as_yaml(value: Any) -> Any:
    if isinstance(value, Section):
        return value.to_mapping()
    return dict(value.mapping) if isinstance(value, Component) else value


def plain(value: Any) -> Any:
    """Return mappings, lists and OmegaConf's containers as dicts and lists, and NumPy's numbers as Python's."""
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list) or (isinstance(value, Sequence) and type(value).__module__.startswith("omegaconf.")):
        return [plain(item) for item in value]
    if isinstance(value, Number) and type(value).__module__ == "numpy":
        return value.item()  # type: ignore[attr-defined]
    return value
