"""Answers that are led to begin as the chunk being executed, from networks that weren't trained for it.

Source: Black et al. 2025, "Real-Time Execution of Action Chunking Flow Policies" (RTC), arXiv 2506.07339.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vla_ros.policies.architectures.base import Architecture, Inputs
from vla_ros.policies.architectures.flow_vla import FlowVla
from vla_ros.policies.representations.flow_matching import integrate
from vla_ros.policies.representations.prefix import guided_velocity


def can_guide(model: Architecture) -> bool:
    """Whether a network samples in steps that can be led."""
    return isinstance(model, FlowVla)


def sample_guided(model: Architecture, inputs: Inputs, noise: Tensor, prefix: Tensor, weights: Tensor) -> Tensor:
    """As `Architecture.sample`, led towards a prefix.

    Args:
        model: for which `can_guide` is true.
        inputs: what is seen.
        noise: (B, H, d) standard normal.
        prefix: (B, H, d) normalised actions, whatever where the weight is 0.
        weights: (H,) how much each step is held to the prefix.

    Returns:
        (B, H, d) normalised actions.

    Raises:
        TypeError: for a network that can't be led.
    """
    if not isinstance(model, FlowVla):
        raise TypeError(f"{model.name} doesn't sample in steps that can be led")
    tokens = model.context(inputs).tokens
    is_free = torch.zeros(noise.shape[:2], dtype=torch.bool, device=noise.device)

    def velocity(x: Tensor, time: Tensor) -> Tensor:
        return model.flow(x, time[:, None].expand(is_free.shape), is_free, tokens)

    return integrate(guided_velocity(velocity, prefix, weights), noise, model.config.steps)
