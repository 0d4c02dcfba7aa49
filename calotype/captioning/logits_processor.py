"""`GumbelMaxSampler`: sample tokens with one seed per row, so that the batch does not change the answers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["GumbelMaxSampler"]


class GumbelMaxSampler:
    """A logits processor for greedy decoding that makes it draw instead.

    To each logit, divided by the temperature, it adds noise of Gumbel's distribution; the largest sum is then a draw
    from the softmax (the Gumbel-max trick: Gumbel 1954; Maddison et al., "A* Sampling", 2014). `generate`'s own
    sampling takes all rows from one generator, so that what a row gets would depend on its neighbours.

    Args:
        seeds: One for each row.
        temperature: Above 0.
        top_p: Draws only among the likeliest tokens that together have this probability (Holtzman et al., "The
            Curious Case of Neural Text Degeneration", 2019); None among all.
    """

    def __init__(self, seeds: Sequence[int], *, temperature: float, top_p: float | None) -> None:
        self._seeds, self._temperature, self._top_p = seeds, temperature, top_p
        self._generators: list[torch.Generator] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Scores (B, vocabulary) whose argmax is a draw."""
        if not self._generators:
            self._generators = [torch.Generator(scores.device).manual_seed(seed) for seed in self._seeds]
        scores = scores.float() / self._temperature
        if self._top_p is not None:
            scores = _likeliest(scores, self._top_p)
        noise = torch.stack(
            [
                torch.empty(scores.shape[1], device=scores.device).exponential_(generator=generator)
                for generator in self._generators
            ]
        )
        return scores - noise.log()  # -log of an exponential variable is a Gumbel variable


def _likeliest(scores: Tensor, top_p: float) -> Tensor:
    """-inf for all but the likeliest tokens that together have the probability `top_p`: at least one each row."""
    ordered, places = scores.sort(dim=-1, descending=True)
    before = ordered.softmax(dim=-1).cumsum(dim=-1) - ordered.softmax(dim=-1)  # of all likelier ones
    return scores.masked_fill((before >= top_p).gather(-1, places.argsort(dim=-1)), -torch.inf)
