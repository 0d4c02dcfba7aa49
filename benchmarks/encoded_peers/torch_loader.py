"""torch's DataLoader at the setting that was fastest for these samples."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from encoded_peers import Batch, Job


def epochs(
    dataset: torch.utils.data.Dataset[Any],
    job: Job,
    *,
    collate: Callable[[Any], Batch] | None = None,
    shuffle: bool = True,
) -> torch.utils.data.DataLoader[Any]:
    """Workers that stay, two batches ahead for each. `pin_memory` is off: there is no device here."""
    return torch.utils.data.DataLoader(
        dataset,
        batch_size=job.batch_size,
        shuffle=shuffle,
        num_workers=job.workers,
        persistent_workers=True,
        collate_fn=collate,
    )
