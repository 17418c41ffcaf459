"""Answers that are led to begin as the chunk being executed, from networks that weren't trained for it.

Source: Black et al. 2025, "Real-Time Execution of Action Chunking Flow Policies" (RTC), arXiv 2506.07339.
"""

from __future__ import annotations

from torch import Tensor

from vla_ros.policies.architectures.base import Architecture, Inputs
from vla_ros.policies.architectures.diffusion import DiffusionPolicy
from vla_ros.policies.architectures.flow_vla import FlowVla
from vla_ros.policies.representations.flow_matching import integrate
from vla_ros.policies.representations.prefix import guided_denoiser, guided_velocity


def can_guide(model: Architecture) -> bool:
    """Whether a network samples in steps that can be led."""
    return isinstance(model, FlowVla | DiffusionPolicy)


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
    if isinstance(model, FlowVla):
        tokens, flow = model.context(inputs).tokens, model.flow

        def velocity(x: Tensor, time: Tensor) -> Tensor:
            return flow(x, _at_every_step(time, x), tokens)

        return integrate(guided_velocity(velocity, prefix, weights), noise, model.config.steps)
    if isinstance(model, DiffusionPolicy):
        scene, denoiser, diffusion = model.scene(inputs), model.denoiser, model.config.diffusion

        def denoise(noisy: Tensor, timesteps: Tensor) -> Tensor:
            return denoiser(noisy, _at_every_step(timesteps, noisy), scene)

        return diffusion.sample(guided_denoiser(denoise, diffusion, prefix, weights), noise, model.config.steps)
    raise TypeError(f"{model.name} doesn't sample in steps that can be led")


def _at_every_step(time: Tensor, x: Tensor) -> Tensor:
    """(B,) times to (B, H): none of the steps is given clean."""
    return time[:, None].expand(x.shape[:2])
