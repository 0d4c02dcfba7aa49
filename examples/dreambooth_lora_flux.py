"""diffusers' train_dreambooth_lora_flux.py, with the images and prompts of calotype.

What changes in the script, beside which this file is laid:

1. At its top: `from dreambooth_lora_flux import dreambooth_data`.
2. In `main`, for its statements `train_dataset = …` and `train_dataloader = …`:
   `train_dataset, train_dataloader = dreambooth_data(args, accelerator.device)`.
3. Nothing else: every image has its own captions, its own shape, and is flipped anew in each epoch.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

import torch

import calotype

__all__ = ["dreambooth_data"]

NOT_TAKEN = {
    "with_prior_preservation": "class images can't share a batch with images of another shape",
    "cache_latents": "the script would pair latents of one epoch's order with captions of another's; see encodings",
    "dataset_config_name": "name the data files themselves with --instance_data_dir",
}


class DreamBoothBatch(calotype.PixelsTransform):
    """What the script's `collate_fn` gives: `pixel_values`, float32 (B, 3, H, W) in [-1, 1], and `prompts`, a list."""

    def prepare(self, sample: Mapping[str, Any], /) -> dict[str, Any]:
        return super().prepare(sample) | {"prompts": sample["text"]}

    def finish(self, batch: Mapping[str, Any], /) -> dict[str, Any]:
        batch = super().finish(batch)
        return {"pixel_values": batch.pop("img"), **batch}


def dreambooth_data(
    args: argparse.Namespace, device: torch.device
) -> tuple[calotype.TextToImageDataset, calotype.Loader]:
    """The script's `train_dataset` and `train_dataloader`.

    Args:
        args: The script's options. `--instance_data_dir` may be anything that calotype reads. Images without a
            caption get `--instance_prompt`. `--repeats` and `--center_crop` have no part: epochs are what repeats, and
            buckets cut off little, around the centre.
        device: Where batches go.

    Raises:
        ValueError: An option is given that these data can't serve.
    """
    for option, reason in NOT_TAKEN.items():
        if getattr(args, option):
            raise ValueError(f"--{option}: {reason}")
    columns = {"caption": args.caption_column} if args.caption_column else {}
    if args.dataset_name:  # of a folder or data file the columns are found
        columns["image"] = args.image_column
    dataset = calotype.text_to_image_dataset(
        DreamBoothBatch(),
        model="flux.1-dev",
        path=args.dataset_name or args.instance_data_dir,
        columns=columns,
        missing_captions=args.instance_prompt,
        resolution=args.resolution,
        img_transform={"horizontal_flip": 0.5 if args.random_flip else 0.0},
        seed=args.seed or 0,
    )
    dataset.custom_instance_prompts = True  # the script asks whether each image has a prompt of its own
    return dataset, calotype.Loader(dataset, args.train_batch_size, device=device)
