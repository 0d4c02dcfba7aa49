"""A Lightning module and data module over a calotype.Loader: FLUX.1's transformer on kept encodings.

What changes in your code:

1. `train_dataloader` returns a `calotype.Loader`, made for the rank and device that the trainer has by then.
2. Nothing for checkpoints: Lightning finds the loader's `state_dict` and resumes with the very next batch.
3. Latents and embeddings come in the batch: the module holds no autoencoder and no text encoders.

    calotype encode photos.yaml
    python examples/lightning_module.py photos.yaml out
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L  # noqa: N812 (as Lightning's own documentation writes it)
import torch
import typer
from diffusers import FluxTransformer2DModel
from flux_loss import flux_loss
from lightning.pytorch.callbacks import ModelCheckpoint

import calotype


class Photos(L.LightningDataModule):
    """The batches of a config's encodings."""

    def __init__(self, config_file: str) -> None:
        super().__init__()
        self.config_file = config_file

    def train_dataloader(self) -> calotype.Loader:
        device = self.trainer.strategy.root_device
        return calotype.build_loader(calotype.load_config(self.config_file, [f"loader.device={device}"]))


class FluxModule(L.LightningModule):
    """FLUX.1's transformer with its loss."""

    def __init__(self, model: str, lr: float) -> None:
        super().__init__()
        self.transformer = FluxTransformer2DModel.from_pretrained(model, subfolder="transformer").train()
        self.lr = lr

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> torch.Tensor:
        step = self.global_step * self.trainer.world_size + self.global_rank  # Lightning keeps no random state
        generator = torch.Generator(self.device).manual_seed(step)
        embeds = batch["prompt_embeds"], batch["pooled_prompt_embeds"]
        loss = flux_loss(self.transformer, batch["latents"], *embeds, generator=generator)
        self.print(f"step {self.global_step + 1} loss {loss.item():.6f}")
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=self.lr)


def train(config_file: str, output: Path, *, steps: int = 1000, save_every: int = 100, lr: float = 1e-4) -> None:
    """Trains up to `steps`, from `output/last.ckpt` on where there is one."""
    save = ModelCheckpoint(output, every_n_train_steps=save_every, save_last=True)
    trainer = L.Trainer(max_steps=steps, callbacks=[save], logger=False, enable_progress_bar=False)
    module = FluxModule(calotype.load_config(config_file)["model"], lr)
    last = output / "last.ckpt"
    trainer.fit(module, datamodule=Photos(config_file), ckpt_path=str(last) if last.exists() else None)


if __name__ == "__main__":
    typer.run(train)
