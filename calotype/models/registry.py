"""The registry of model families: calotype's own, those of other packages, and those that a script registers."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Final

from calotype.errors import MOST, ConfigError, nearest, or_list
from calotype.models.family import ModelFamily
from calotype.models.model_path import refuse_weights_file
from calotype.models.spec import ModelSpec
from calotype.terminal import get_logger

__all__ = [
    "ENTRY_POINTS",
    "broken_packages",
    "get_family",
    "get_spec",
    "list_families",
    "list_specs",
    "not_loaded",
    "register",
]

ENTRY_POINTS: Final = "calotype.models"
"""The group of entry points in which other packages name their `ModelFamily` records: `toy = "my_package.toy:TOY"`."""

_BUILT_IN: Final = ("flux", "sd3", "sdxl", "sd15", "qwen_image", "z_image", "flux2", "chroma", "pixart", "sana")
"""The modules beside this one that hold a `FAMILY`."""

_registered: dict[str, ModelFamily] = {}
_not_loaded: list[str] = []
_log = get_logger(__name__)


def register(family: ModelFamily) -> None:
    """Register a family: its models' names then work wherever calotype takes a model.

    Registering a family of the same class again replaces it (a notebook cell that runs twice). A package lists its
    families in the entry points `calotype.models` instead: the command line reads those, too.

    Raises:
        ConfigError: Its name, or one of its models' names, is another family's.
    """
    _load_packages()
    _add(family)


def list_families() -> list[ModelFamily]:
    """Return all families, calotype's own first."""
    _load_packages()
    return [*_built_in().values(), *_registered.values()]


def get_family(name: str) -> ModelFamily:
    """Return the family of a name (`ModelSpec.family`).

    Raises:
        ConfigError: There is none. Names packages whose families could not be loaded.
    """
    if (found := _built_in().get(name)) is not None:
        return found
    for family in list_families():
        if family.name == name:
            return family
    known = ", ".join(one.name for one in list_families())
    raise ConfigError(f"model family: no family {name!r}; known: {known}{not_loaded()}")


def list_specs() -> list[ModelSpec]:
    """Return all models, sorted by name."""
    return sorted((spec for family in list_families() for spec in family.models), key=lambda spec: spec.name)


def get_spec(name: str) -> ModelSpec:
    """Return the facts about a model.

    Args:
        name: calotype's (`flux.1-dev`) or the hub's (`black-forest-labs/FLUX.1-dev`); letter case does not matter.

    Raises:
        ConfigError: There is no such model; names the nearest, and packages whose families could not be loaded.
    """
    wanted = str(name).lower()
    spec = _by_name(_built_in().values()).get(wanted)  # first: the entry points of other packages are slower to read
    if spec is None:
        known = _by_name(list_families())
        spec = known.get(wanted)
    if spec is None:
        refuse_weights_file(name)
        near = _nearest(wanted, known)
        hint = f"; did you mean {or_list(near)}?" if near else "."
        folder = f" and no folder {str(name)!r}" if _is_path(str(name)) else ""
        raise ConfigError(
            f"model: no model {name!r}{folder}{hint} Known: {', '.join(spec.name for spec in list_specs())}, or their "
            f"names on the hub{not_loaded()}"
        )
    return spec


def broken_packages() -> tuple[str, ...]:
    """Return a message for each model family in the entry points of an installed package that can't be loaded."""
    _load_packages()
    return tuple(_not_loaded)


def not_loaded() -> str:
    """Return `broken_packages` as the end of an error message: `; …`, or an empty string."""
    return "".join(f"; {reason}" for reason in broken_packages())


def _is_path(name: str) -> bool:
    """Whether somebody who writes this means a folder."""
    return name.startswith((".", "~", "/")) or name.count("/") > 1


def _nearest(wanted: str, known: Mapping[str, ModelSpec]) -> list[str]:
    """Return the models that a misspelt name may mean, at most three: also an unfinished one, or one with a version."""
    if _is_path(wanted):
        return []
    names = {(name if "/" in wanted else name.rpartition("/")[2]): spec.name for name, spec in known.items()}
    plain = _letters(wanted)
    found = [one for name, one in names.items() if _letters(name) == plain]
    found = found or [one for name, one in names.items() if plain and _begins(plain, _letters(name))]
    found = found or [names[name] for name in nearest(wanted, names)]
    return list(dict.fromkeys(found))[:MOST]


def _letters(name: str) -> str:
    """A name without what people write in different ways: `sd-1.5`, `sd15`."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _begins(one: str, other: str) -> bool:
    """Whether one of two names is the beginning of the other: `flux`, `sdxl10`."""
    return one.startswith(other) or other.startswith(one)


def _by_name(families: Iterable[ModelFamily]) -> dict[str, ModelSpec]:
    """Map all names of the families' models, in lower case, to their specs."""
    specs = [spec for family in families for spec in family.models]
    return {name.lower(): spec for spec in specs for name in (*spec.hub, spec.name)}


def _add(family: ModelFamily) -> None:
    """Register a family.

    Raises:
        ConfigError: A family of another class has one of its names.
    """
    for other in (*_built_in().values(), *_registered.values()):
        taken = _names(family) & _names(other)
        if taken and _class_of(other) != _class_of(family):
            raise ConfigError(
                f"model family {family.name!r}: {', '.join(sorted(taken))} is taken by the family {other.name!r} of "
                f"{type(other).__module__}; expected another name"
            )
    _registered[family.name] = family


def _class_of(family: ModelFamily) -> str:
    return f"{type(family).__module__}.{type(family).__qualname__}"


def _names(family: ModelFamily) -> set[str]:
    return {family.name.lower(), *(name.lower() for spec in family.models for name in (spec.name, *spec.hub))}


@cache
def _built_in() -> dict[str, ModelFamily]:
    families: list[ModelFamily] = [importlib.import_module(f"calotype.models.{name}").FAMILY for name in _BUILT_IN]
    return {family.name: family for family in families}


@cache
def _load_packages() -> None:
    """Register the families of installed packages. One that fails to load is reported, and the others still work."""
    from importlib.metadata import entry_points

    for point in entry_points(group=ENTRY_POINTS):
        try:
            family = point.load()
            if not isinstance(family, ModelFamily):
                raise ConfigError(f"a ModelFamily was expected, found {type(family).__name__}")
            _add(family)
        except Exception as error:
            package = point.dist.name if point.dist is not None else "a package"
            reason = f"{package} announces the model family {point.value}, which can't be loaded: {error}"
            _not_loaded.append(reason)
            _log.warning("%s", reason)
