"""A package's public names, imported when they are first used, so that `import` of the package alone is fast."""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["exports"]


def exports(package: str, names: Mapping[str, str], *, former: Mapping[str, str] | None = None) -> Callable[[str], Any]:
    """Return a package's `__getattr__`.

    Args:
        package: The package's `__name__`.
        names: Module of each public name, relative to the package: `{"run": ".command"}`.
        former: Public name of each deprecated name: `{"train_config": "run"}`. Using one raises a `DeprecationWarning`.
    """
    replaced = former or {}

    def load(name: str) -> Any:
        if name in replaced:
            today = f"{package}.{replaced[name]}"
            warnings.warn(
                f"{package}.{name} is now {today}; the former name works until the next version",
                DeprecationWarning,
                stacklevel=2,
            )
            return load(replaced[name])
        if name not in names:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(names[name], package), name)
        setattr(sys.modules[package], name, value)  # found there from now on
        return value

    return load
