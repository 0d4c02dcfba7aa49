"""`step_identity`: a hash of a custom step's code, its state and everything they refer to, equal in all processes."""

from __future__ import annotations

import copyreg
import dis
import enum
import functools
import hashlib
import importlib
import random
import sys
import sysconfig
import types
from collections.abc import Callable, Iterable, Iterator
from importlib import metadata
from pathlib import Path, PurePath
from typing import Any, Final

import numpy as np
import torch

from calotype.errors import ConfigError

__all__ = ["step_identity"]

_LIBRARIES: Final = tuple({sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")})
_SITE: Final = frozenset(("site-packages", "dist-packages"))

_GENERATORS: Final = (
    random.Random,
    np.random.Generator,
    np.random.BitGenerator,
    np.random.RandomState,
    torch.Generator,
)
"""Random generators. Usually seeded elsewhere, and their state changes with each use: they can't be hashed."""

_OF_CLASSES: Final = frozenset(
    (
        *("__module__", "__qualname__", "__doc__", "__dict__", "__weakref__", "__slots__", "_abc_impl"),
        *("__annotations__", "__annotate__", "__annotate_func__", "__annotations_cache__"),
        *("__firstlineno__", "__static_attributes__", "__parameters__", "__orig_bases__"),
        *("__dataclass_fields__", "__dataclass_params__", "__match_args__"),
    )
)
"""Members of a class that do not affect what it computes, or follow from its other members."""


class _UntellableError(Exception):
    """An object can't be hashed; the message names it."""


def step_identity(function: Callable[..., Any]) -> str:
    """Return a hash of everything visible that determines the output of a custom step, equal in all processes.

    Hashes of the user's own code: a function's bytecode, defaults, closure and the globals it reads; an object's class
    and its state, as pickle saves it. Of code of an installed package: name, version and bytecode. An object with an
    attribute `cache_key` is identified by that only, also if another object refers to it.

    Args:
        function: The step.

    Raises:
        ConfigError: It refers to something that can't be hashed, such as a file, a lock or a random generator. Set its
            attribute `cache_key`.
    """
    known = getattr(function, "cache_key", None)
    if known is not None and not isinstance(known, str | int | float | bytes):
        raise ConfigError(f"custom: {function!r} has a cache_key of type {type(known).__name__}; expected a text")
    walk = _Walk()
    try:
        walk.add(function)
    except Exception as error:  # objects of the user may raise anything when their attributes are read
        reason = str(error) if isinstance(error, _UntellableError) else f"{type(error).__name__}: {error}"
        raise ConfigError(
            f"custom: {function!r} can't be told from another step ({reason}), so what was encoded with it could be "
            "met after it changed; give it an attribute `cache_key`, a text that changes whenever its images do"
        ) from None
    return str(walk.digest.hexdigest())


class _Walk:
    """Walks over everything that a step refers to, and hashes the hash of each object.

    So the result does not depend on whether equal constants are one object, which differs between processes.
    """

    def __init__(self) -> None:
        self.digest = _new()
        self._known: dict[int, bytes] = {}
        self._above: dict[int, int] = {}
        """Id of each object that is being hashed → its depth. For cycles."""
        self._alive: list[Any] = []
        """All objects hashed. Keeps them alive, so that no other object gets an id that is in `_known`."""

    def add(self, value: Any) -> None:
        """Hash a value, and everything that it refers to."""
        if value is None or (isinstance(value, bool | int | float | complex | str | bytes) and not _has_state(value)):
            self._say(type(value).__name__, repr(value))
            return
        if (depth := self._above.get(id(value))) is not None:
            self._say("cycle", str(len(self._above) - depth))
            return
        if (known := self._known.get(id(value))) is None:
            above, self.digest = self.digest, _new()
            self._above[id(value)] = len(self._above)
            self._alive.append(value)
            self._inside(value)
            del self._above[id(value)]
            known = self._known[id(value)] = self.digest.digest()
            self.digest = above
        self._say("object", known)

    def _inside(self, value: Any) -> None:
        key = getattr(value, "cache_key", None) if not isinstance(value, type | types.ModuleType) else None
        if isinstance(key, str | int | float | bytes):
            kind = value if isinstance(value, types.FunctionType) else type(value)
            self._say("key", f"{kind.__module__}.{kind.__qualname__}", repr(key))
        elif not self._plain(value) and not self._code(value):
            self._instance(value)

    def _say(self, kind: str, *parts: str | bytes) -> None:
        for part in (kind, *parts):
            data = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
            self.digest.update(len(data).to_bytes(8, "little") + data)

    def _all(self, kind: str, values: Iterable[Any]) -> None:
        values = list(values)
        self._say(kind, str(len(values)))
        for value in values:
            self.add(value)

    def _plain(self, value: Any) -> bool:
        """Hash data; return False if the value is not data."""
        match value:
            case torch.Tensor():
                plain = value.detach().cpu().contiguous()
                self._say("tensor", str(plain.dtype), str(tuple(plain.shape)), _raw(plain))
            case torch.dtype() | torch.device() | np.dtype() | PurePath() | types.EllipsisType():
                self._say(type(value).__name__, str(value))
            case np.ndarray() if not value.dtype.hasobject:
                self._say("array", str(value.dtype), str(value.shape), np.ascontiguousarray(value).tobytes())
            case enum.Enum():
                self._say("enum", type(value).__qualname__, str(value.name))
                self.add(value.value)
            case tuple() | list() if type(value) in (tuple, list):
                self._all(type(value).__name__, value)
            case dict() if type(value) is dict:
                self._all("dict", [part for item in value.items() for part in item])
            case set() | frozenset():
                self._say("set", *sorted(_alone(item) for item in value))
            case bytearray():
                self._say("bytearray", bytes(value))
            case _:
                return False
        return True

    def _code(self, value: Any) -> bool:
        """Hash code and what it refers to; return False if the value is not code."""
        match value:
            case types.FunctionType() if not _installed(value.__module__):
                self._function(value)
            case types.FunctionType():
                self._library(value)
                self._bytecode(value.__code__)
                self._all("defaults", [value.__defaults__, value.__kwdefaults__, *_cells(value)])
            case types.MethodType():
                self._all("method", [value.__func__, value.__self__])
            case types.ModuleType():
                self._module(value)
            case type():
                self._class(value)
            case types.CodeType():
                self._bytecode(value)
            case types.BuiltinFunctionType() | types.MethodWrapperType():
                self._say("builtin", value.__qualname__)
                self.add(value.__self__)
            case types.MethodDescriptorType() | types.WrapperDescriptorType() | types.ClassMethodDescriptorType():
                self._say("builtin", value.__objclass__.__qualname__, value.__name__)
            case types.GetSetDescriptorType() | types.MemberDescriptorType():
                self._say("slot", value.__name__)
            case property():
                self._all("property", [value.fget, value.fset, value.fdel])
            case staticmethod() | classmethod() | functools.cached_property():
                self._all(type(value).__name__, [value.func if hasattr(value, "func") else value.__func__])
            case _ if callable(value) and hasattr(value, "__wrapped__"):  # such as a result of functools.lru_cache
                self._all("wrapped", [type(value), value.__wrapped__])
            case _:
                return False
        return True

    def _function(self, function: types.FunctionType) -> None:
        self._say("function")
        self._bytecode(function.__code__)
        self._all("defaults", [function.__defaults__, function.__kwdefaults__, vars(function), *_cells(function)])
        for name, value in _globals(function, function.__code__):
            self._say("global", name)
            self.add(value)

    def _bytecode(self, code: types.CodeType) -> None:
        """Hash a code object without its location: no file name, no line numbers."""
        self._say(
            *("code", code.co_code, code.co_exceptiontable, str(code.co_flags), str(code.co_names)),
            *(str(code.co_varnames), str(code.co_freevars), str(code.co_cellvars), str(code.co_argcount)),
            *(str(code.co_posonlyargcount), str(code.co_kwonlyargcount)),
        )
        self._all("constants", code.co_consts)

    def _class(self, kind: type) -> None:
        if _installed(kind.__module__):
            self._library(kind)
            for name, value in sorted(vars(kind).items()):
                for function in _functions(value):
                    self._say("method", name)
                    self._bytecode(function.__code__)
            return
        self._say("class", kind.__qualname__)
        self._all("bases", kind.__bases__)
        for name, value in sorted(vars(kind).items()):
            if name not in _OF_CLASSES:
                self._say("member", name)
                self.add(value)

    def _library(self, value: Any) -> None:
        self._say("library", f"{value.__module__}.{value.__qualname__}", _version(value.__module__))

    def _module(self, module: types.ModuleType) -> None:
        """Hash a module: name and version of an installed one, else its file and the user's modules it refers to."""
        if _installed(module.__name__):
            self._say("library", module.__name__, _version(module.__name__))
            return
        file = getattr(module, "__file__", None)
        if file is None:
            raise _UntellableError(f"it uses all of the module {module.__name__!r}, which is no file")
        self._say("module", Path(file).read_bytes())
        for _, value in sorted(vars(module).items()):
            other = value if isinstance(value, types.ModuleType) else sys.modules.get(getattr(value, "__module__", ""))
            if other is not None and other is not module and not _installed(other.__name__):
                self.add(other)

    def _instance(self, value: Any) -> None:
        """Hash an object's class and its state, as pickle saves it."""
        if isinstance(value, _GENERATORS):
            raise _UntellableError(f"it holds a {type(value).__name__}, whose state every draw changes")
        reduce = copyreg.dispatch_table.get(type(value))
        try:
            reduced = value.__reduce_ex__(4) if reduce is None else reduce(value)
        except Exception:
            raise _UntellableError(f"nothing tells what is in a {type(value).__name__}") from None
        if isinstance(reduced, str):
            self._say("named", type(value).__module__, reduced, _version(type(value).__module__))
            return
        make, arguments, state, items, pairs = (*reduced, None, None, None)[:5]
        self._all("object", [type(value), make, arguments, state])
        self._all("items", items or ())
        self._all("pairs", [part for pair in pairs or () for part in pair])


def _new() -> Any:
    return hashlib.blake2b(b"calotype step 1", digest_size=16)


def _alone(value: Any) -> bytes:
    """Return the hash of a member of a set by itself, since sets have no order."""
    walk = _Walk()
    walk.add(value)
    return bytes(walk.digest.digest())


def _has_state(value: Any) -> bool:
    """Return whether a number or text is of a subclass, which may have state besides its value."""
    return type(value) not in (bool, int, float, complex, str, bytes)


def _raw(tensor: torch.Tensor) -> bytes:
    return tensor.reshape(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b""


def _cells(function: types.FunctionType) -> list[Any]:
    """Return the values in a function's closure; None for a cell that is still empty."""
    found = []
    for cell in function.__closure__ or ():
        try:
            found.append(cell.cell_contents)
        except ValueError:
            found.append(None)
    return found


def _functions(member: Any) -> list[types.FunctionType]:
    """Return the functions in a member of a class."""
    found = [member]
    if isinstance(member, property):
        found = [member.fget, member.fset]
    elif isinstance(member, staticmethod | classmethod):
        found = [member.__func__]
    return [each for each in found if isinstance(each, types.FunctionType)]


def _globals(function: types.FunctionType, code: types.CodeType) -> Iterator[tuple[str, Any]]:
    """Yield (name, value) of each global that a function reads; of the user's modules, the attribute that it reads."""
    space = function.__globals__
    steps = list(dis.get_instructions(code))
    for index, step in enumerate(steps):
        if step.opname in ("LOAD_GLOBAL", "LOAD_NAME") and step.argval in space:
            name, value = step.argval, space[step.argval]
            for later in steps[index + 1 :]:
                if not (isinstance(value, types.ModuleType) and not _installed(value.__name__)):
                    break
                if later.opname not in ("LOAD_ATTR", "LOAD_METHOD") or not hasattr(value, later.argval):
                    break
                name, value = f"{name}.{later.argval}", getattr(value, later.argval)
            yield name, value
        elif step.opname == "IMPORT_NAME":
            yield step.argval, _imported(step.argval, steps[index - 2].argval, space)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _globals(function, constant)


def _imported(name: str, level: Any, space: dict[str, Any]) -> Any:
    """Return the module of an import inside a function."""
    try:
        return importlib.import_module("." * int(level or 0) + name, space.get("__package__"))
    except Exception:
        raise _UntellableError(f"it imports {name!r}, which can't be imported") from None


def _installed(name: str | None) -> bool:
    """Return whether a module belongs to Python or an installed package, not to the user."""
    module = sys.modules.get(name or "")
    if module is None:
        return False
    if module.__name__.partition(".")[0] == "calotype":
        return True
    file = getattr(module, "__file__", None)
    if file is None:
        return name in sys.builtin_module_names or getattr(module, "__spec__", None) is not None
    return bool(_SITE & set(Path(file).parts)) or str(file).startswith(_LIBRARIES)


@functools.cache
def _version(module: str) -> str:
    """Return the version of a module's package, without the local part (`+cu124`), which differs between builds."""
    top = module.partition(".")[0]
    if top in sys.stdlib_module_names:
        return f"{sys.version_info.major}.{sys.version_info.minor}"
    found = getattr(sys.modules.get(top), "__version__", None)
    if found is None:
        try:
            found = metadata.version(top)
        except metadata.PackageNotFoundError:
            found = ""
    return str(found).partition("+")[0]
