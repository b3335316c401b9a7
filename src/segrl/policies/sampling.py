"""Seeded sampling that depends on a request alone, not on what stands beside it in a batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch


class GumbelNoise:
    """A logits processor after which the most likely token is a draw from softmax(logits / temperature).

    Each row has a generator of its own (Gumbel-max sampling), so a row's tokens do not depend on
    the rows beside it. `scores`: float32 (rows, vocabulary).
    """

    def __init__(self, seeds: Sequence[int], temperature: float, device: torch.device) -> None:
        self._temperature = temperature
        self._generators = [torch.Generator(device).manual_seed(seed) for seed in seeds]

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        noise = torch.empty_like(scores)
        for row, generator in zip(noise, self._generators, strict=True):
            row.exponential_(generator=generator)
        return scores / self._temperature - noise.clamp_min_(torch.finfo(noise.dtype).tiny).log_()
