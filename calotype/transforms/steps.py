"""`Step`: a custom step of an image transform, any callable on images, made reproducible."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from PIL import Image

from calotype.errors import ConfigError
from calotype.transforms.options import as_list
from calotype.transforms.seeded import SeededDraws

__all__ = ["Step", "as_steps"]

_CHECKED_CALLS = 8


class Step:
    """Calls `function` with a uint8 (3, H, W) tensor or, if that raises, with a Pillow image.

    Each call decides anew, so a result does not depend on earlier images or their order. torch's random numbers follow
    from the seed. The first 8 calls run twice, to detect other sources of randomness.
    """

    def __init__(self, function: Callable[[Any], Any], number: int = 0) -> None:
        self.function = function
        self.place = f"img_transform.custom[{number}] ({_name(function)})"
        """Names the step in messages."""
        self._unchecked = _CHECKED_CALLS

    def __repr__(self) -> str:
        return f"Step({self.function!r})"

    def __call__(self, image: torch.Tensor, seed: int) -> torch.Tensor:
        """Return uint8 (3, H', W') on the device of `image`, a pure function of (image, seed).

        Args:
            image: uint8 (3, H, W); not changed.
            seed: In [0, 2**63).

        Raises:
            ConfigError: `function` takes float images only, or returned something other than a uint8 image.
            Exception: That of `function`, with a note that names the step.
        """
        result = self._run(image, seed)
        if self._unchecked > 0:
            self._unchecked -= 1
            if not torch.equal(result, self._run(image, seed)):
                self._unchecked = 0
                warnings.warn(
                    f"custom: {self.function!r} returned two different images for the same seed: it uses randomness "
                    "outside torch or keeps state, so resume and preview can't reproduce it; use torch's functions",
                    stacklevel=2,
                )
        return result

    def _run(self, image: torch.Tensor, seed: int) -> torch.Tensor:
        try:
            result = self._call(image.clone(), seed)
        except Exception as error:
            if _is_system_error(error):
                raise  # no matter of the argument's type, and a Pillow image could give other pixels
            # A callable's argument type is unknown; if it takes neither, the first error is the relevant one.
            try:
                result = self._call(_pillow(image), seed)
            except Exception:
                result = None
            if result is None:
                if self._takes_floats(image, seed):
                    raise ConfigError(
                        f"{self.place}: takes float images, and steps get uint8 (3, H, W) or Pillow images; leave it "
                        f"out: calotype normalizes after the steps ({error})"
                    ) from error
                error.add_note(f"{self.place} raised this for a uint8 image {tuple(image.shape)}")
                raise
        return self._checked(result, image)

    def _call(self, image: torch.Tensor | Image.Image, seed: int) -> Any:
        with torch.no_grad(), SeededDraws(seed):
            return self.function(image)

    def _takes_floats(self, image: torch.Tensor, seed: int) -> bool:
        try:
            self._call(image.float().div(255), seed)
        except Exception:
            return False
        return True

    def _checked(self, result: Any, image: torch.Tensor) -> torch.Tensor:
        if isinstance(result, Image.Image):
            result = torch.from_numpy(np.array(result.convert("RGB"))).permute(2, 0, 1)
        if not (isinstance(result, torch.Tensor) and result.dtype == torch.uint8 and result.ndim == 3):
            raise ConfigError(f"custom: {self.function!r} returned {_what(result)}; expected {_EXPECTED}")
        if result.shape[0] != 3:
            raise ConfigError(f"custom: {self.function!r} returned {_what(result)}; expected {_EXPECTED}")
        return result.as_subclass(torch.Tensor).to(image.device)


_EXPECTED = (
    "a uint8 tensor of shape (3, H, W) or a Pillow image; leave out ToDtype and Normalize, which the model's "
    "transform applies"
)


def as_steps(custom: Any) -> tuple[Step, ...]:
    """Wrap a callable, a sequence of callables, or None as steps."""
    functions = as_list(custom) if custom is not None else []
    for function in functions:
        if not callable(function):
            raise ConfigError(f"custom: found {function!r}, expected a callable on images or a _component_ mapping")
    return tuple(
        function if isinstance(function, Step) else Step(function, number) for number, function in enumerate(functions)
    )


def _name(function: Callable[[Any], Any]) -> str:
    return getattr(function, "__name__", None) or type(function).__name__


def _is_system_error(error: Exception) -> bool:
    """Whether memory or I/O failed; OSErrors that Pillow raises for an unsupported argument have no errno."""
    no_memory = isinstance(error, MemoryError | torch.OutOfMemoryError)
    return no_memory or (isinstance(error, OSError) and error.errno is not None)


def _pillow(image: torch.Tensor) -> Image.Image:
    return Image.fromarray(image.permute(1, 2, 0).contiguous().cpu().numpy())


def _what(result: Any) -> str:
    if isinstance(result, torch.Tensor):
        return f"a {str(result.dtype).removeprefix('torch.')} tensor of shape {tuple(result.shape)}"
    return f"a {type(result).__name__}"
