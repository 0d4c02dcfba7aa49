"""`SeededDraws`: run torch code with its own random generator in place of the global one, in one thread."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from calotype.errors import ConfigError

__all__ = ["SeededDraws"]


class SeededDraws(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Context manager that makes every random operation of torch inside it a pure function of `seed`.

    torch's transforms and layers use the process-wide generator and take no other. This dispatch mode intercepts each
    random operation (Tensor methods, `torch.distributions`, dropout, TorchScript) and passes it its own generator. The
    global generator is neither read nor set. A mode is active in one thread, so threads are independent.

    Python's `random` and NumPy's global generator are not covered.

    Args:
        seed: In [0, 2**63). Each device has a generator with this seed; a GPU's numbers differ from the CPU's.

    Raises:
        ConfigError: Inside the block, for a random operation that accepts no generator in this version of torch.
    """

    def __init__(self, seed: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._seed = seed
        self._generators: dict[torch.device, torch.Generator] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if torch.Tag.nondeterministic_seeded not in func.tags:
            return func(*args, **kwargs)
        seeded = _with_generator(func)
        if kwargs.get("generator") is None:
            kwargs["generator"] = self._generator(_device(args, kwargs))
        return seeded(*args, **kwargs)

    def _generator(self, device: torch.device) -> torch.Generator:
        if device not in self._generators:
            self._generators[device] = torch.Generator(device).manual_seed(self._seed)
        return self._generators[device]


@cache
def _with_generator(func: Any) -> Any:
    """Return the overload of a random operation that takes the same arguments and a generator."""
    wanted = [argument.name for argument in func._schema.arguments]
    if "generator" in wanted:
        return func
    packet = func.overloadpacket
    for name in packet.overloads():
        overload = getattr(packet, name)
        arguments = [(argument.name, str(argument.type)) for argument in overload._schema.arguments]
        others = [argument for argument in arguments if argument[0] != "generator"]
        if len(others) < len(arguments) and others == [(a.name, str(a.type)) for a in func._schema.arguments]:
            return overload
    raise ConfigError(
        f"custom: {func} uses torch's global generator and accepts no other, so it is not reproducible; "
        "use torch.rand, Tensor.uniform_ and the like instead"
    )


def _device(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> torch.device:
    """Return the device of an operation's random numbers: `device`, else that of its first tensor, else the CPU."""
    if kwargs.get("device") is not None:
        return torch.device(kwargs["device"])
    tensors = [value for value in (*args, *kwargs.values()) if isinstance(value, torch.Tensor)]
    return tensors[0].device if tensors else torch.device("cpu")
