"""What a network is trained to predict: from a noisy image at a time t between 0 (image) and 1 (noise)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from calotype.errors import ConfigError
from calotype.models import flow

if TYPE_CHECKING:
    import torch
    from torch import Tensor

__all__ = ["Denoising", "FlowMatching", "Objective"]


class Objective(Protocol):
    """A path from an image (t = 0) to noise (t = 1). Times are (B,), float32; latents and noise (B, C, h, w)."""

    scheduler_class: ClassVar[str]
    """The diffusers class that loads the pipeline's `scheduler` folder."""

    def __init__(self, scheduler: Any) -> None: ...

    def sample_times(self, count: int, sequence_length: int, *, rng: torch.Generator) -> Tensor:
        """Sample the times (count,) at which a batch is trained, on the CPU, for images of `sequence_length` tokens."""
        ...

    def timesteps(self, times: Tensor) -> Tensor:
        """Convert times to the timesteps that the network takes (B,)."""
        ...

    def add_noise(self, latents: Tensor, noise: Tensor, times: Tensor) -> Tensor:
        """Return the network's input x_t (B, C, h, w)."""
        ...

    def target(self, latents: Tensor, noise: Tensor, times: Tensor) -> Tensor:
        """Return what the network is trained to predict (B, C, h, w)."""
        ...


class FlowMatching:
    """A straight path; the target is its velocity (see `flow`). FLUX.1 and SD3."""

    scheduler_class: ClassVar = "FlowMatchEulerDiscreteScheduler"

    def __init__(self, scheduler: Any) -> None:
        self._config: Mapping[str, Any] = dict(scheduler.config)

    def sample_times(self, count: int, sequence_length: int, *, rng: torch.Generator) -> Tensor:
        return flow.sample_times(count, flow.shift(self._config, sequence_length), rng=rng)

    def timesteps(self, times: Tensor) -> Tensor:
        return times

    def add_noise(self, latents: Tensor, noise: Tensor, times: Tensor) -> Tensor:
        return flow.interpolate(latents, noise, times)

    def target(self, latents: Tensor, noise: Tensor, times: Tensor) -> Tensor:
        return flow.velocity(latents, noise)


class Denoising:
    """Uniform timesteps of the schedule; the target is the noise, or v. SDXL and SD 1.5.

    x_t = √ᾱ_t · x₀ + √(1 − ᾱ_t) · noise (Ho et al., "Denoising Diffusion Probabilistic Models", 2020, equation 4), with
    the ᾱ of the pipeline's scheduler. With `v_prediction` the target is √ᾱ_t · noise − √(1 − ᾱ_t) · x₀ (Salimans and
    Ho, "Progressive Distillation", 2022).

    Raises:
        ConfigError: The scheduler has another prediction type.
    """

    scheduler_class: ClassVar = "DDPMScheduler"

    def __init__(self, scheduler: Any) -> None:
        self._scheduler = scheduler
        self._kind: str = scheduler.config.prediction_type
        if self._kind not in ("epsilon", "v_prediction"):
            raise ConfigError(
                f"model: its scheduler has prediction_type {self._kind!r}; expected epsilon or v_prediction"
            )

    def sample_times(self, count: int, sequence_length: int, *, rng: torch.Generator) -> Tensor:
        import torch

        return torch.rand(count, generator=rng)

    def timesteps(self, times: Tensor) -> Tensor:
        """Convert times to steps of the schedule (B,), int64: 0 to 999."""
        steps: int = self._scheduler.config.num_train_timesteps
        return (times * steps).long().clamp_(max=steps - 1)

    def add_noise(self, latents: Tensor, noise: Tensor, times: Tensor) -> Tensor:
        x_t: Tensor = self._scheduler.add_noise(latents, noise, self.timesteps(times))
        return x_t

    def target(self, latents: Tensor, noise: Tensor, times: Tensor) -> Tensor:
        if self._kind == "epsilon":
            return noise
        velocity: Tensor = self._scheduler.get_velocity(latents, noise, self.timesteps(times))
        return velocity
