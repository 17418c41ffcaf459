"""A moving average of weights, which makes a better policy than the last of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor


class WeightAverage:
    """An exponential moving average that forgets the beginning: step n keeps at most (1 + n) / (10 + n).

    Source of the warm-up: `tf.train.ExponentialMovingAverage` with `num_updates`.

    Args:
        weights: those that are trained, by name; the average begins with them.
        decay: share of the average that a step keeps; 0 for the newest weights.
    """

    def __init__(self, weights: Mapping[str, Tensor], decay: float) -> None:
        self._weights = dict(weights)
        self._decay = decay
        self.averages = {name: weight.detach().clone() for name, weight in weights.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Takes up the weights after a step, counted from 0."""
        decay = min(self._decay, (1.0 + step) / (10.0 + step))
        torch._foreach_lerp_(
            list(self.averages.values()), [weight.detach() for weight in self._weights.values()], 1.0 - decay
        )

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The weights are the averages within the block, and what they were after it."""
        newest = {name: weight.detach().clone() for name, weight in self._weights.items()}
        try:
            self._put(self.averages)
            yield
        finally:
            self._put(newest)

    @torch.no_grad()
    def _put(self, values: Mapping[str, Tensor]) -> None:
        for name, weight in self._weights.items():
            weight.copy_(values[name])
