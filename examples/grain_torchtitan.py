"""A torchtitan-style loop fed by Grain over a TextToImageDataset: FLUX.1 from pixels and tokens.

What changes in your code:

1. `build_flux_dataloader` gives a `GrainDataLoader`: torchtitan's (input_dict, labels), with its names of the keys.
2. A position in Grain's order becomes a `SampleKey`, so flips and captions are drawn anew in each epoch.
3. Nothing for checkpoints: the loader is `Stateful`, and `dataloader` stays one of the checkpoint's states.

    python examples/grain_torchtitan.py photos.yaml out
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grain
import torch
import torch.distributed.checkpoint as dcp
import typer
from diffusers import FluxPipeline, FluxTransformer2DModel
from flux_loss import flux_loss
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict

import calotype
from calotype.data.collate import collate
from calotype.types import SampleKey


class GrainDataLoader:
    """Endless batches of one data-parallel rank: token ids as `input_dict`, pixels as `labels`."""

    def __init__(
        self, dataset: calotype.TextToImageDataset, batch_size: int, *, dp_rank: int = 0, dp_world_size: int = 1
    ) -> None:
        self._rank_id = f"dp_rank_{dp_rank}"
        self._world_size = dp_world_size

        def sample(position: int, index: int) -> dict[str, Any]:
            return dataset[SampleKey(index, epoch=(position * dp_world_size + dp_rank) // len(dataset))]

        order = grain.MapDataset.range(len(dataset)).shuffle(seed=dataset.seed).repeat()[dp_rank::dp_world_size]
        batches = order.map_with_index(sample).batch(batch_size, batch_fn=collate)
        self._batches = iter(batches.to_iter_dataset(grain.ReadOptions(num_threads=4, prefetch_buffer_size=4)))

    def __iter__(self) -> Iterator[tuple[dict[str, torch.Tensor], torch.Tensor]]:
        for batch in self._batches:
            yield {"clip_tokens": batch["clip_text_tokens"], "t5_tokens": batch["t5_text_tokens"]}, batch["img"]

    def state_dict(self) -> dict[str, Any]:
        return {self._rank_id: self._batches.get_state(), "world_size": self._world_size}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if state["world_size"] != self._world_size:
            raise ValueError(f"the checkpoint is of {state['world_size']} ranks, this run has {self._world_size}")
        self._batches.set_state(state[self._rank_id])


class Weights:
    """The transformer and its optimizer, as a checkpoint holds them."""

    def __init__(self, transformer: FluxTransformer2DModel, optimizer: torch.optim.Optimizer) -> None:
        self.parts = transformer, optimizer

    def state_dict(self) -> dict[str, Any]:
        model, optimizer = get_state_dict(*self.parts)
        return {"model": model, "optimizer": optimizer}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        set_state_dict(*self.parts, model_state_dict=state["model"], optim_state_dict=state["optimizer"])


@torch.no_grad()
def encode(frozen: FluxPipeline, input_dict: dict[str, torch.Tensor], labels: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """What torchtitan's `preprocess_data` makes of a batch: latents, T5's embeddings, CLIP's pooled one."""
    latents = frozen.vae.encode(labels).latent_dist.mode()
    latents = (latents - frozen.vae.config.shift_factor) * frozen.vae.config.scaling_factor
    clip = frozen.text_encoder(input_dict["clip_tokens"]).pooler_output
    return latents, frozen.text_encoder_2(input_dict["t5_tokens"])[0], clip


def train(config_file: str, output: Path, *, steps: int = 1000, save_every: int = 100, lr: float = 1e-4) -> None:
    """Trains up to `steps`, from the last checkpoint in `output` on where there is one."""
    config = calotype.load_config(config_file, ["buckets=false"])  # Grain's batches take rows as they come
    loader = GrainDataLoader(calotype.build_dataset(config), batch_size=4)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    frozen = FluxPipeline.from_pretrained(config["model"]).to(device)
    transformer = frozen.transformer.train()
    optimizer = torch.optim.AdamW(transformer.parameters(), lr=lr)
    states = {"weights": Weights(transformer, optimizer), "dataloader": loader}

    step = 0
    if saved := sorted(output.glob("step-*")):
        dcp.load(states, checkpoint_id=saved[-1])
        step = int(saved[-1].name.removeprefix("step-"))

    for input_dict, labels in loader:
        input_dict = {key: tokens.to(device) for key, tokens in input_dict.items()}
        noise = torch.Generator(device).manual_seed(step)
        loss = flux_loss(transformer, *encode(frozen, input_dict, labels.to(device)), generator=noise)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        step += 1
        print(f"step {step} loss {loss.item():.6f}")
        if step % save_every == 0:
            dcp.save(states, checkpoint_id=output / f"step-{step:06d}")
        if step >= steps:
            break


if __name__ == "__main__":
    typer.run(train)
