"""The exponential moving average of the trained weights, on their device."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

__all__ = ["Average"]


class Average:
    """diffusers' `EMAModel` of some parameters.

    Args:
        parameters: The trained parameters.
        decay: Weight of the average at each step, below 1.
    """

    def __init__(self, parameters: Iterable[torch.nn.Parameter], *, decay: float) -> None:
        self._parameters = list(parameters)
        self._model = importlib.import_module("diffusers.training_utils").EMAModel(self._parameters, decay=decay)
        self._to_parameters()

    def step(self) -> None:
        """Update the average after a step."""
        self._model.step(self._parameters)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Replace the parameters by their average inside the context."""
        self._model.store(self._parameters)
        self._model.copy_to(self._parameters)
        try:
            yield
        finally:
            self._model.restore(self._parameters)

    def state_dict(self) -> dict[str, Any]:
        state: dict[str, Any] = self._model.state_dict()
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Load a state, and move it to the parameters' devices: diffusers leaves it on the CPU."""
        self._model.load_state_dict(dict(state))
        self._to_parameters()

    def _to_parameters(self) -> None:
        self._model.shadow_params = [
            shadow.to(parameter.device, parameter.dtype)
            for shadow, parameter in zip(self._model.shadow_params, self._parameters, strict=True)
        ]
