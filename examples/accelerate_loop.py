"""A plain accelerate loop over a calotype.Loader: FLUX.1's transformer on kept encodings.

What changes in your code:

1. The loader is made after `Accelerator()`, goes by its ranks and device, and is not given to `prepare`.
2. `accelerator.register_for_checkpointing(loader)` puts its position into every checkpoint.
3. Latents and embeddings come in the batch: the loop holds no autoencoder and no text encoders.

    calotype encode photos.yaml
    accelerate launch examples/accelerate_loop.py photos.yaml out
"""

from __future__ import annotations

from pathlib import Path

import torch
import typer
from accelerate import Accelerator
from accelerate.utils import set_seed
from diffusers import FluxTransformer2DModel
from flux_loss import flux_loss

import calotype


def train(config_file: str, output: Path, *, steps: int = 1000, save_every: int = 100, lr: float = 1e-4) -> None:
    """Trains up to `steps`, from the last checkpoint in `output` on where there is one."""
    accelerator = Accelerator()
    set_seed(0, device_specific=True)  # of the noise; the data's seed is the config's
    config = calotype.load_config(config_file, [f"loader.device={accelerator.device}"])
    loader = calotype.build_loader(config)
    accelerator.register_for_checkpointing(loader)

    transformer = FluxTransformer2DModel.from_pretrained(config["model"], subfolder="transformer").train()
    optimizer = torch.optim.AdamW(transformer.parameters(), lr=lr)
    transformer, optimizer = accelerator.prepare(transformer, optimizer)

    step = 0
    if saved := sorted(output.glob("checkpoint-*")):
        accelerator.load_state(str(saved[-1]))
        step = int(saved[-1].name.removeprefix("checkpoint-"))

    while step < steps:
        for batch in loader:  # one epoch, or what is left of it
            loss = flux_loss(transformer, batch["latents"], batch["prompt_embeds"], batch["pooled_prompt_embeds"])
            accelerator.backward(loss)
            optimizer.step()
            optimizer.zero_grad()
            step += 1
            accelerator.print(f"step {step} loss {loss.item():.6f}")
            if step % save_every == 0:
                accelerator.save_state(str(output / f"checkpoint-{step:06d}"))
            if step == steps:
                break
    loader.close()
    accelerator.end_training()


if __name__ == "__main__":
    typer.run(train)
