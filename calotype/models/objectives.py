"""What is trained: what the network sees of an image at a time between 0 and 1, and what it is to answer there."""

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
    """One way from an image (t = 0) to noise (t = 1). Times are (B,), float32; latents and noise (B, C, h, w)."""

    scheduler_class: ClassVar[str]
    """diffusers' scheduler that the pipeline's `scheduler` folder is read as."""

    def __init__(self, scheduler: Any) -> None: ...

    def draw_times(self, count: int, sequence_length: int, *, rng: torch.Generator) -> Tensor:
        """The times (count,) that a batch of images of so many tokens is trained at, on the CPU."""
        ...

    def told(self, times: Tensor) -> Tensor:
        """The times as the network is told them (B,)."""
        ...

    def noised(self, latents: Tensor, noise: Tensor, times: Tensor) -> Tensor:
        """What the network sees."""
        ...

    def target(self, latents: Tensor, noise: Tensor, times: Tensor) -> Tensor:
        """What it is to answer."""
        ...


class FlowMatching:
    """A straight path and its velocity (see `flow`): FLUX.1 and SD3."""

    scheduler_class: ClassVar = "FlowMatchEulerDiscreteScheduler"

    def __init__(self, scheduler: Any) -> None:
        self._config: Mapping[str, Any] = dict(scheduler.config)

    def draw_times(self, count: int, sequence_length: int, *, rng: torch.Generator) -> Tensor:
        return flow.draw_times(count, flow.shift(self._config, sequence_length), rng=rng)

    def told(self, times: Tensor) -> Tensor:
        return times

    def noised(self, latents: Tensor, noise: Tensor, times: Tensor) -> Tensor:
        return flow.interpolate(latents, noise, times)

    def target(self, latents: Tensor, noise: Tensor, times: Tensor) -> Tensor:
        return flow.velocity(latents, noise)


class Denoising:
    """The noise itself, at one of the schedule's steps, each as likely as the others: SDXL and SD 1.5.

    x_t = √ᾱ_t · x₀ + √(1 − ᾱ_t) · noise (Ho et al., "Denoising Diffusion Probabilistic Models", 2020, equation 4), with
    the ᾱ of the pipeline's scheduler; where that says `v_prediction`, the answer is √ᾱ_t · noise − √(1 − ᾱ_t) · x₀
    (Salimans and Ho, "Progressive Distillation", 2022).

    Raises:
        ConfigError: The scheduler wants an answer of another kind.
    """

    scheduler_class: ClassVar = "DDPMScheduler"

    def __init__(self, scheduler: Any) -> None:
        self._scheduler = scheduler
        self._kind: str = scheduler.config.prediction_type
        if self._kind not in ("epsilon", "v_prediction"):
            raise ConfigError(
                f"model: its scheduler has prediction_type {self._kind!r}; expected epsilon or v_prediction"
            )

    def draw_times(self, count: int, sequence_length: int, *, rng: torch.Generator) -> Tensor:
        import torch

        return torch.rand(count, generator=rng)

    def told(self, times: Tensor) -> Tensor:
        """The numbers of the schedule's steps (B,), int64: 0 up to 999."""
        steps: int = self._scheduler.config.num_train_timesteps
        return (times * steps).long().clamp_(max=steps - 1)

    def noised(self, latents: Tensor, noise: Tensor, times: Tensor) -> Tensor:
        noised: Tensor = self._scheduler.add_noise(latents, noise, self.told(times))
        return noised

    def target(self, latents: Tensor, noise: Tensor, times: Tensor) -> Tensor:
        if self._kind == "epsilon":
            return noise
        velocity: Tensor = self._scheduler.get_velocity(latents, noise, self.told(times))
        return velocity
