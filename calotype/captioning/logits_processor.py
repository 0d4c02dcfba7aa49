"""`GumbelMaxSampler`: sample tokens with one seed per row, so that the batch does not change the answers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["GumbelMaxSampler"]


class GumbelMaxSampler:
    """A logits processor that makes greedy decoding sample.

    It adds Gumbel noise to the logits, divided by the temperature; the argmax is then a sample of the softmax (the
    Gumbel-max trick: Gumbel 1954; Maddison et al., "A* Sampling", 2014). `generate` itself samples all rows with one
    generator, so that the result of a row would depend on the rest of the batch.

    Args:
        seeds: One per row.
        temperature: Above 0.
        top_p: Samples only from the most likely tokens that together have this probability (Holtzman et al., "The
            Curious Case of Neural Text Degeneration", 2019); None from all.
    """

    def __init__(self, seeds: Sequence[int], *, temperature: float, top_p: float | None) -> None:
        self._seeds, self._temperature, self._top_p = seeds, temperature, top_p
        self._generators: list[torch.Generator] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return scores (B, vocabulary) whose argmax is a sample."""
        if not self._generators:
            self._generators = [torch.Generator(scores.device).manual_seed(seed) for seed in self._seeds]
        scores = scores.float() / self._temperature
        if self._top_p is not None:
            scores = _top_p(scores, self._top_p)
        noise = torch.stack(
            [
                torch.empty(scores.shape[1], device=scores.device).exponential_(generator=generator)
                for generator in self._generators
            ]
        )
        return scores - noise.log()  # -log of an exponential variable is a Gumbel variable


def _top_p(scores: Tensor, top_p: float) -> Tensor:
    """Set all but the most likely tokens that together have probability `top_p` to -inf; at least one per row stays."""
    ordered, indices = scores.sort(dim=-1, descending=True)
    before = ordered.softmax(dim=-1).cumsum(dim=-1) - ordered.softmax(dim=-1)  # of all more likely tokens
    return scores.masked_fill((before >= top_p).gather(-1, indices.argsort(dim=-1)), -torch.inf)
