"""`_component_`: a mapping that names code becomes the object it describes, with torchtune's meaning."""

from __future__ import annotations

import difflib
import importlib
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from calotype.errors import ConfigError, unknown_key

__all__ = ["COMPONENT", "build", "check_options", "locate"]

COMPONENT = "_component_"


def locate(path: str) -> Any:
    """The object at a dotted path (`torchvision.transforms.v2.GaussianBlur`).

    Raises:
        ConfigError: Nothing is there; says which part of the path was found.
    """
    parts = path.split(".") if isinstance(path, str) else []
    if len(parts) < 2 or not all(part.isidentifier() for part in parts):
        raise ConfigError(f"{COMPONENT}: {path!r} is not a dotted path such as 'package.module.name'")
    for cut in range(len(parts) - 1, 0, -1):
        module_name = ".".join(parts[:cut])
        try:
            found: Any = importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            if error.name is not None and (module_name == error.name or module_name.startswith(f"{error.name}.")):
                continue
            raise _import_failed(path, module_name, error) from error
        except ImportError as error:
            raise _import_failed(path, module_name, error) from error
        for done, part in enumerate(parts[cut:], start=cut):
            if not hasattr(found, part):
                raise ConfigError(_no_such_name(path, ".".join(parts[:done]), found, part))
            found = getattr(found, part)
        return found
    raise ConfigError(f"{COMPONENT}: no module {parts[0]!r} to find {path!r} in; is its package installed?")


def build(config: Any, *args: Any, where: str, **defaults: Any) -> Any:
    """Instantiates every `_component_` mapping inside `config`, innermost first; anything else passes through.

    Args:
        config: A mapping with `_component_`, a plain mapping or list that may hold such mappings, or any value.
        *args: Given to the outermost component before its options (torchtune's tokenizer, say).
        where: What the value is for, as error messages should call it.
        **defaults: Options for the outermost component that the mapping does not give.

    Raises:
        ConfigError: The path leads nowhere, or the component does not take these options.
    """
    if isinstance(config, Mapping):
        options = {key: build(value, where=f"{where}.{key}") for key, value in config.items() if key != COMPONENT}
        if COMPONENT not in config:
            return options
        return _call(config[COMPONENT], args, defaults | options, where=where)
    if isinstance(config, list | tuple) and not hasattr(config, "_fields"):
        return type(config)(build(value, where=f"{where}[{i}]") for i, value in enumerate(config))
    return config


def _call(path: str, args: tuple[Any, ...], options: dict[str, Any], *, where: str) -> Any:
    component: Callable[..., Any] = locate(path)
    if not callable(component):
        raise ConfigError(f"{where}: {path!r} is a {type(component).__name__}; expected a class or a function")
    check_options(component, args, options, where=where, path=path)
    try:
        return component(*args, **options)
    except Exception as error:
        error.add_note(f"while building {where}: {path}")
        raise


def check_options(
    component: Callable[..., Any],
    args: tuple[Any, ...],
    options: Mapping[str, Any],
    *,
    where: str,
    path: str | None = None,
) -> None:
    """Refuses what a class or function could not be called with, before it is called.

    Args:
        component: What will be called.
        args: Its positional arguments.
        options: Its keyword arguments.
        where: What it is for, as error messages should call it.
        path: How the config called it, if it did.

    Raises:
        ConfigError: An option is unknown (names the nearest right one), or a needed one is missing.
    """
    try:
        signature = inspect.signature(component)
    except (TypeError, ValueError):
        return  # some built-in callables have none to look at
    if inspect.Parameter.VAR_KEYWORD not in {parameter.kind for parameter in signature.parameters.values()}:
        for key in options:
            if key not in signature.parameters:
                raise unknown_key(f"{where} ({path})" if path else where, key, signature.parameters)
    try:
        signature.bind(*args, **options)
    except TypeError as error:
        called = path or getattr(component, "__qualname__", repr(component))
        raise ConfigError(f"{where}: {called} can't be called with {sorted(options)}: {error}") from error


def _import_failed(path: str, module_name: str, error: ImportError) -> ConfigError:
    return ConfigError(f"{COMPONENT} {path!r}: importing {module_name!r} failed: {error}")


def _no_such_name(path: str, holder: str, found: Any, part: str) -> str:
    near = difflib.get_close_matches(part, [name for name in dir(found) if not name.startswith("_")], n=3)
    hint = f"; did you mean {' or '.join(near)}?" if near else ""
    return f"{COMPONENT} {path!r}: {holder!r} has no {part!r}{hint}"
