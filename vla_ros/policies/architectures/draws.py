"""What a network that denoises learns from: every sample several times, with noises and prefixes of its own."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from vla_ros.policies.architectures.base import Batch, draw_normal, hold_last_valid
from vla_ros.policies.representations.prefix import sample_prefix_counts


class Draws(NamedTuple):
    """N = B times draws.

    Attributes:
        context: (N, ...) what is seen, encoded once a sample.
        actions: (N, H, d) normalised, the last valid one held.
        is_valid: (N, H) bool.
        noise: (N, H, d) standard normal.
        committed: (N,) int64, steps of the prefix.
    """

    context: Tensor
    actions: Tensor
    is_valid: Tensor
    noise: Tensor
    committed: Tensor


def make_draws(context: Tensor, batch: Batch, draws: int, prefix_steps: int, generator: torch.Generator) -> Draws:
    """Repeats a batch, with noise and prefixes.

    Args:
        context: (B, ...).
        batch: of B samples.
        draws: of each.
        prefix_steps: longest prefix; shorter chunks have at most all but one step.
        generator: of both.
    """
    repeated = (context, hold_last_valid(batch.actions, batch.is_valid), batch.is_valid)
    context, actions, is_valid = (tensor.repeat_interleave(draws, dim=0) for tensor in repeated)
    noise = draw_normal(actions, generator)
    most = min(prefix_steps, actions.shape[1] - 1)
    count = sample_prefix_counts(len(actions), most, generator, generator.device).to(actions.device)
    return Draws(context, actions, is_valid, noise, count)
