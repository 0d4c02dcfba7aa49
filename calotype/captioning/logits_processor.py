"""`GumbelMaxSampler`: samples tokens with one seed per row, so that answers do not depend on the batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["GumbelMaxSampler"]


class GumbelMaxSampler:
    """A logits processor with which greedy decoding samples.

    It adds Gumbel noise to the logits, divided by the temperature; the argmax is then a sample of the softmax (the
    Gumbel-max trick: Gumbel 1954; Maddison et al., "A* Sampling", 2014). `generate` itself samples all rows with one
    generator, so that the result of a row would depend on the rest of the batch.

    Args:
        seeds: One seed per row.
        temperature: Divisor of the logits, above 0.
        top_p: Samples only from the most likely tokens that together have this probability (Holtzman et al., "The
            Curious Case of Neural Text Degeneration", 2019). None: from all.
    """

    def __init__(self, seeds: Sequence[int], *, temperature: float, top_p: float | None) -> None:
        self._seeds, self._temperature, self._top_p = seeds, temperature, top_p
        self._generators: list[torch.Generator] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return scores (B, V) whose argmax is a sample, from the tokens (B, L) and the logits (B, V)."""
        if not self._generators:
            self._generators = [torch.Generator(scores.device).manual_seed(seed) for seed in self._seeds]
        scores = scores.float() / self._temperature
        if self._top_p is not None:
            scores = _top_p(scores, self._top_p)
        # (B, V): exponential variables, each row from its own generator
        noise = torch.stack(
            [
                torch.empty(scores.shape[1], device=scores.device).exponential_(generator=generator)
                for generator in self._generators
            ]
        )
        return scores - noise.log()  # -log of an exponential variable is a Gumbel variable


def _top_p(scores: Tensor, top_p: float) -> Tensor:
    """Mask scores (B, V) with -inf outside of the most likely tokens with total probability `top_p`, at least one."""
    ordered, indices = scores.sort(dim=-1, descending=True)
    before = ordered.softmax(dim=-1).cumsum(dim=-1) - ordered.softmax(dim=-1)  # (B, V): of all more likely tokens
    return scores.masked_fill((before >= top_p).gather(-1, indices.argsort(dim=-1)), -torch.inf)
