"""Former names of modules: importing one returns the current module, with a `DeprecationWarning`."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import TYPE_CHECKING, Final, cast

if TYPE_CHECKING:
    from importlib.abc import Loader

__all__ = ["FORMER", "install"]

FORMER: Final = {
    "builder": "data.builder",
    "caption": "captioning",
    "captioning.distill": "distill",
    "captioning.http": "captioning.http_backend",
    "captioning.local": "captioning.transformers_backend",
    "captioning.models": "captioning.captioners",
    "captioning.pictures": "captioning.prepare_image",
    "collate": "data.collate.collate",
    "components": "config.instantiate",
    "dataset": "data.dataset",
    "draws": "core.rng",
    "encode": "encodings",
    "engine": "encodings",
    "encodings.writer": "encodings.store.writer",
    "engine.crew": "core.actor_pool",
    "inspect": "previews",
    "inspect.check": "check",
    "inspect.check.check": "check.check",
    "inspect.preview": "previews",
    "inspect.summary": "loader.summary",
    "pixel_cache": "data.pixel_cache",
    "recipes": "train",
    "recipes.flow": "models.flow",
    "recipes.objectives": "models.objectives",
    "recipes.train": "train.loop",
    "sample_source": "data.sample_source",
    "sizing": "data.sizing",
}
"""Former name → current name, both without `calotype.`. An entry of a package also applies to the modules in it.

`calotype.collate` is a public function today. Importing a module sets an attribute of its package, so the function
itself takes the place of the module; it has the former module's members as attributes.
"""


class _Former:
    """Finds and loads the modules of `FORMER`. importlib.abc, a third of the time to import calotype, is not needed."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        today = _today(name)
        return None if today is None else ModuleSpec(name, cast("Loader", self), loader_state=today, is_package=True)

    def create_module(self, spec: ModuleSpec) -> None:
        """The usual kind of module."""

    def exec_module(self, module: ModuleType) -> None:
        import pkgutil

        assert module.__spec__ is not None
        name, today = module.__name__, module.__spec__.loader_state
        warnings.warn(
            f"{name} is now {today}; the former name works until the next version", DeprecationWarning, stacklevel=2
        )
        current = pkgutil.resolve_name(today)
        if hasattr(current, "__path__"):  # importing a module of the former package sets an attribute of that package
            module.__dict__["__getattr__"] = lambda attribute: getattr(current, attribute)
        else:
            sys.modules[name] = current


def _today(name: str) -> str | None:
    package, _, rest = name.partition(".")
    if package != "calotype":
        return None
    parts = rest.split(".")
    for length in range(len(parts), 0, -1):
        if (found := FORMER.get(".".join(parts[:length]))) is not None:
            return ".".join(("calotype", found, *parts[length:]))
    return None


def install() -> None:
    """Make the former names importable."""
    sys.meta_path.insert(0, _Former())
