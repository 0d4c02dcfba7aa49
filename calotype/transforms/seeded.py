"""Makes any torch code draw from a given seed instead of torch's global generator, in this thread only."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from calotype.errors import ConfigError

__all__ = ["SeededDraws"]


class SeededDraws(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """`with SeededDraws(seed): …`: every random operation of torch inside is a pure function of `seed`.

    torch's transforms and layers draw from a process-wide generator that they take no argument for. This mode stands
    where torch hands an operation to its kernel, so it sees each random one, whoever asked for it (a Tensor method,
    `torch.distributions`, dropout, TorchScript), and passes it a generator of its own. The global generator is
    neither read nor set. Modes belong to a thread, so threads don't disturb one another.

    Python's `random` and NumPy's global generator are not torch's and are not covered.

    Args:
        seed: In [0, 2**63). A device other than the CPU has a generator of its own with the same seed, whose numbers
            differ from the CPU's.

    Raises:
        ConfigError: (inside) a random operation that this version of torch offers no generator for.
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
    """The overload of a random operation that takes a generator and otherwise the same arguments."""
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
        f"custom: {func} draws from torch's global generator and takes no other, so it can't be repeated; "
        "draw with torch.rand, Tensor.uniform_ and the like instead"
    )


def _device(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> torch.device:
    """Where the drawn numbers will be: the given device, else that of the tensor drawn into, else torch's default."""
    if kwargs.get("device") is not None:
        return torch.device(kwargs["device"])
    tensors = [value for value in (*args, *kwargs.values()) if isinstance(value, torch.Tensor)]
    return tensors[0].device if tensors else torch.device("cpu")
