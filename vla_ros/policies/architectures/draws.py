"""What a network that denoises learns from: every sample several times, with noises and prefixes of its own."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from vla_ros.policies.architectures.base import Batch, action_counts, clean_actions, draw_normal
from vla_ros.policies.representations.flow_matching import Model
from vla_ros.policies.representations.prefix import sample_prefix_counts


class Draws(NamedTuple):
    """N = B times draws.

    Attributes:
        context: (N, ...) what is seen, encoded once a sample.
        actions: (N, H, d) normalised, the last valid one held.
        counts: (N, H, d) of `action_counts`.
        noise: (N, H, d) standard normal.
        committed: (N,) int64, steps of the prefix.
        has_action: (N, d) of `Inputs`, or None.
    """

    context: Tensor
    actions: Tensor
    counts: Tensor
    noise: Tensor
    committed: Tensor
    has_action: Tensor | None


def make_draws(context: Tensor, batch: Batch, draws: int, prefix_steps: int, generator: torch.Generator) -> Draws:
    """Repeats a batch, with noise and prefixes.

    Args:
        context: (B, ...).
        batch: of B samples.
        draws: of each.
        prefix_steps: longest prefix; shorter chunks have at most all but one step.
        generator: of both.
    """
    repeated = (context, clean_actions(batch), action_counts(batch))
    context, actions, counts = (tensor.repeat_interleave(draws, dim=0) for tensor in repeated)
    noise = draw_normal(actions, generator)
    most = min(prefix_steps, actions.shape[1] - 1)
    committed = sample_prefix_counts(len(actions), most, generator, generator.device).to(actions.device)
    has_action = batch.inputs.has_action
    has_action = None if has_action is None else has_action.repeat_interleave(draws, dim=0)
    return Draws(context, actions, counts, noise, committed, has_action)


def without_padding(model: Model, has_action: Tensor | None) -> Model:
    """A velocity or denoiser that neither sees nor moves what the arm at hand doesn't have, (B, d) as in `Inputs`."""
    if has_action is None:
        return model
    is_there = has_action[:, None]

    def unpadded(x: Tensor, time: Tensor) -> Tensor:
        return torch.where(is_there, model(torch.where(is_there, x, 0.0), time), 0.0)

    return unpadded
