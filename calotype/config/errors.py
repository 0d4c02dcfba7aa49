"""What pydantic finds wrong with a config, as errors of calotype: key, value found, what was expected, nearest name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, get_args

from pydantic import BaseModel, ValidationError

from calotype.config.expected import expected
from calotype.errors import ConfigError, nearest, or_list, unknown_key

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

    from calotype.config.section import Section

__all__ = ["OptionError", "config_error", "section_of"]


class OptionError(ValueError):
    """Raised by a section's validator: an option does not go with another one.

    Args:
        option: Its name in the section.
        reason: What was found, what was expected, and how to fix it.
    """

    def __init__(self, option: str, reason: str) -> None:
        super().__init__(reason)
        self.option = option


class _Place(NamedTuple):
    """Where in a config something is wrong."""

    path: str
    """The dotted key."""
    section: type[Section]
    """The section that has the option."""
    field: str | None
    """The option; None for an unknown one."""
    keys: tuple[str, ...]
    """The option, below the sections that hold it."""


def config_error(error: ValidationError, section: type[Section], options: Mapping[str, Any], where: str) -> ConfigError:
    """Return the error that names the first thing that is wrong.

    Args:
        error: What pydantic raised.
        section: The section that was checked.
        options: What was checked.
        where: What to call it; "" for a whole config.
    """
    found = [(_place(one, section, where), one) for one in error.errors(include_url=False)]
    # Each member of a union has its own complaint; of a mapping, what is wrong in it says more than that it is none.
    key = found[0][0].path
    place, one = max(
        (pair for pair in found if pair[0].path == key or pair[0].path.startswith(f"{key}.")),
        key=lambda pair: (len(pair[0].keys), isinstance(_cause(pair[1]), ConfigError | OptionError)),
    )
    cause = _cause(one)
    if isinstance(cause, ConfigError):
        return cause
    if isinstance(cause, OptionError):
        return ConfigError(f"{_joined(place.path, cause.option)}: {cause}")
    if place.field is None:
        holder, _, option = place.path.rpartition(".")
        return _unknown(holder, option, place.section)
    field = place.section.model_fields[place.field]
    words, inner = expected(field.annotation, field.metadata), section_of(field.annotation)
    value = _value(options, place.keys, one["input"])
    if one["type"] == "missing":
        return ConfigError(f"{place.path}: is missing; expected {words}")
    if inner is not None and inner.name and not isinstance(value, Mapping):
        return ConfigError(f"config: {inner.name!r} must be a mapping such as {{{inner.example}}}, and is {value!r}")
    return ConfigError(f"{place.path}: found {value!r}, expected {words or one['msg']}")


def _unknown(where: str, option: str, section: type[Section]) -> ConfigError:
    """The error for an option that a section does not have: perhaps one that another section has."""
    from calotype.config.options import find_options, renamed_option, suggest_options  # they know all sections

    called = f"{where} ({section.component})" if section.component else where
    elsewhere = find_options(option) or renamed_option(option)
    if not elsewhere and not nearest(option, section.names()):
        elsewhere = suggest_options(option)
    if elsewhere:
        return ConfigError(f"{called}: unknown option {option!r}; did you mean {or_list(elsewhere)}?")
    top = where.partition(".")[0]
    return unknown_key(called, option, section.names(), listed_by=f"calotype config keys {top}".rstrip())


def _cause(error: ErrorDetails) -> Exception | None:
    """The exception that a validator of ours raised."""
    return error.get("ctx", {}).get("error")


def _place(error: ErrorDetails, section: type[Section], where: str) -> _Place:
    unknown = error["type"] == "extra_forbidden"
    loc = error["loc"][:-1] if unknown else error["loc"]
    path, current, keys = where, section, list[str]()
    inner: type[Section] | None = section
    for item in loc:  # the names of a union's members are in it too; they are of no option
        if inner is not None and isinstance(item, str) and item in inner.model_fields:
            current = inner
            keys.append(item)
            path = _joined(path, item)
            inner = section_of(current.model_fields[item].annotation)
    if unknown and inner is not None:
        return _Place(_joined(path, str(error["loc"][-1])), inner, None, (*keys, str(error["loc"][-1])))
    return _Place(path, current, keys[-1] if keys else "", tuple(keys))


def _joined(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _value(options: Any, keys: tuple[str, ...], found: Any) -> Any:
    """The whole value of an option: what pydantic names may be one item of it."""
    for key in keys:
        if not isinstance(options, Mapping) or key not in options:
            return found
        options = options[key]
    return options


def section_of(annotation: Any) -> type[Section] | None:
    """Return the one section among the types of an option; None where there is none."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation  # type: ignore[return-value]
    return next(filter(None, map(section_of, get_args(annotation))), None)
