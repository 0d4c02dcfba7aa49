"""`Component`: a part of a config that names code with `_component_`; for users' own code, and for torchtune's."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, core_schema

from calotype.config.instantiate import COMPONENT, build
from calotype.errors import ConfigError

__all__ = ["OUR_DATASET", "Component", "instantiate"]

OUR_DATASET: Final = "calotype.text_to_image_dataset"
"""The path of calotype's own dataset, whose options are those of the section `dataset`."""


@dataclass(frozen=True, slots=True)
class Component:
    """Code to call, and the options to call it with. That code decides which options there are."""

    mapping: Mapping[str, Any]
    """With `_component_`, a dotted path, among its keys."""

    @property
    def path(self) -> str:
        """The dotted path."""
        return str(self.mapping[COMPONENT])

    def build(self, *args: Any, where: str, **options: Any) -> Any:
        """Call the code.

        Args:
            *args: Passed to it before its options.
            where: What the object is for, as errors call it.
            **options: Replace those of the mapping.

        Raises:
            ConfigError: The path leads nowhere, or the code does not take these options.
        """
        here = str(Path.cwd())
        if here not in sys.path:
            sys.path.append(here)  # as torchtune does: a file beside the config may hold the user's own components
        return build({**self.mapping, **options}, *args, where=where)

    @staticmethod
    def found(value: Any, *, ours: str | None = None) -> Any:
        """Return a mapping that names code as a component; anything else as it is.

        Args:
            value: What a config has.
            ours: The path of calotype's own function for this part, whose options are a section's.
        """
        if not isinstance(value, Mapping) or COMPONENT not in value:
            return value
        if value[COMPONENT] == ours:
            return {name: option for name, option in value.items() if name != COMPONENT}
        return Component(value)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """An instance: `found` makes them."""
        return core_schema.is_instance_schema(cls)

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """A mapping with `_component_`."""
        return {
            "type": "object",
            "title": "Component",
            "description": "An object of your own: the class or function to call, and its options.",
            "properties": {COMPONENT: {"type": "string", "description": "A dotted path: package.module.name."}},
            "required": [COMPONENT],
        }


def instantiate(config: Mapping[str, Any] | None, *args: Any, **kwargs: Any) -> Any:
    """Make the object that a `_component_` mapping describes, as torchtune's `config.instantiate` does.

    Nested `_component_` mappings are made first. Modules of the current directory can be named too.

    Args:
        config: A mapping with `_component_`, plain or OmegaConf's. None gives None.
        *args: Passed to the component before its options.
        **kwargs: Options that replace those of the mapping.

    Raises:
        ConfigError: There is no `_component_`, it leads nowhere, or it does not take these options.
    """
    from calotype.config.section import plain

    if config is None:
        return None
    mapping = plain(config)
    if not isinstance(mapping, Mapping) or COMPONENT not in mapping:
        raise ConfigError(f"config: expected a mapping with {COMPONENT}: package.module.name, found {config!r}")
    return Component(mapping).build(*args, where="config", **kwargs)
