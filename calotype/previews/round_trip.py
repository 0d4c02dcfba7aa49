"""The round trip through a frozen autoencoder: how much of an image a model's latents preserve."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

import numpy as np
import torch

from calotype.errors import ConfigError, MissingDependencyError
from calotype.previews.views import Pixels, RoundTrip

__all__ = ["Autoencoder", "psnr", "to_uint8"]


class Autoencoder:
    """A diffusers autoencoder, such as `AutoencoderKL`.

    Args:
        model: Has `encode(x).latent_dist` and `decode(z).sample`.
        device: Device to run on. Default: CUDA if available, else the CPU.
    """

    def __init__(self, model: torch.nn.Module, *, device: str | torch.device | None = None) -> None:
        if not (hasattr(model, "encode") and hasattr(model, "decode")):
            raise ConfigError(f"autoencoder: found {type(model).__name__}, expected one that encodes and decodes")
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.model: Any = model.to(self.device).eval()

    @classmethod
    def from_pretrained(cls, path: str | Path, *, device: str | torch.device | None = None) -> Self:
        """Load an autoencoder in float32: half precision would add an error of its own.

        Args:
            path: A folder with the autoencoder, a saved pipeline with the autoencoder in `vae/`, or the name of either
                on the hub.
            device: See the class.

        Raises:
            ConfigError: There is no autoencoder at `path`.
            MissingDependencyError: diffusers is not installed.
        """
        try:
            from diffusers import AutoModel
        except ImportError as error:
            raise MissingDependencyError("diffusers", extra="diffusers", purpose="for the round trip") from error
        folder = Path(path).expanduser()
        # A local folder shows whether it is a pipeline. On the hub try a pipeline first: most names are one.
        subfolders = ["vae", None] if not folder.is_dir() or (folder / "vae").is_dir() else [None]
        problems = []
        for subfolder in subfolders:
            try:
                model = AutoModel.from_pretrained(  # type: ignore[no-untyped-call]
                    str(folder if folder.is_dir() else path), subfolder=subfolder, torch_dtype=torch.float32
                )
            except (OSError, ValueError) as error:
                problems.append(str(error))
            else:
                return cls(model, device=device)
        raise ConfigError(
            f"autoencoder: no autoencoder of diffusers at {path}; expected a folder with its config.json and weights, "
            f"a saved pipeline with them in vae/, or the hub's name of either ({problems[-1]})"
        )

    def __call__(self, image: Pixels) -> RoundTrip:
        """Encode an image to the mode of its posterior, and decode it.

        Args:
            image: uint8 (H, W, 3), sRGB; the model gets float32 (1, 3, H, W) in [-1, 1].

        Raises:
            ConfigError: The sides are not multiples of the model's factor, or its latents have no distribution.
        """
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None]  # (1, 3, H, W)
        with torch.no_grad():
            decoded = self._there_and_back(pixels.to(self.device, torch.float32) / 127.5 - 1)
        if decoded.shape != pixels.shape:
            raise ConfigError(
                f"autoencoder: {image.shape[1]}×{image.shape[0]} px came back as {decoded.shape[3]}×{decoded.shape[2]} "
                "px: expected sides that its factor divides; name the model (--model), so that the buckets fit it"
            )
        back = to_uint8(decoded[0]).cpu().permute(1, 2, 0).numpy()  # (H, W, 3)
        return RoundTrip(image=back, psnr=psnr(image, back))

    def _there_and_back(self, pixels: torch.Tensor) -> torch.Tensor:
        encoded = self.model.encode(pixels)
        if not hasattr(encoded, "latent_dist"):
            raise ConfigError(
                f"autoencoder: {type(self.model).__name__} gives {type(encoded).__name__}, expected one with a "
                "latent_dist, as AutoencoderKL has"
            )
        decoded: torch.Tensor = self.model.decode(encoded.latent_dist.mode()).sample  # (1, 3, H, W)
        return decoded


def to_uint8(image: torch.Tensor) -> torch.Tensor:
    """Scale an image from [-1, 1] to uint8: the inverse of `(img / 127.5) - 1`, exact for 8-bit values."""
    return ((image.float() + 1) * 127.5).round_().clamp_(0, 255).to(torch.uint8)


def psnr(image: Pixels, other: Pixels) -> float:
    """Return the peak signal-to-noise ratio in dB, 10 log10(255² / MSE), of two uint8 images; inf if they are equal."""
    error = float(np.mean((image.astype(np.float32) - other.astype(np.float32)) ** 2, dtype=np.float64))
    return float(10 * np.log10(255**2 / error)) if error else float("inf")
