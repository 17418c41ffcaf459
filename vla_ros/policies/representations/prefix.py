"""Real-time chunking inside a torch model: a chunk is sampled so that it goes on from the committed one.

There are two ways. Guided inpainting (RTC) works with any velocity or denoiser, and differentiates through it. With
prefix conditioning the model has learnt it: committed steps are given clean, at the time of clean actions, so that
sampling needs no gradient and can be exported. Which steps are committed, and their values, are `committed.py`'s.

Time is that of `flow_matching`: 0 noise, 1 actions.

Source: Black et al., "Real-Time Execution of Action Chunking Flow Policies" (RTC), arXiv 2506.07339; Black et al.,
"Training-Time Action Conditioning for Efficient Real-Time Chunking", arXiv 2512.05964.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vla_ros.policies.representations.diffusion import Denoiser, Diffusion
from vla_ros.policies.representations.flow_matching import Model, Velocity, beside, predicted_actions

# beta of the paper.
MAX_GUIDANCE = 5.0


def guided_velocity(
    velocity: Velocity, prefix: Tensor, weights: Tensor, max_guidance: float = MAX_GUIDANCE
) -> Velocity:
    """A velocity that leads to chunks that begin as the prefix does.

    It may be called under `torch.no_grad()`. What the model holds must not have been made in `torch.inference_mode()`.

    Args:
        velocity: the model; times are (B,).
        prefix: Y, (B, H, d) normalised actions of the chunk under way; whatever where the weight is 0.
        weights: diag(W), (H,) or (B, H), `prefix_weights`.
        max_guidance: beta; larger holds the prefix more firmly, and few steps of integration then overshoot.

    Source: RTC, eq. 2 to 5, after Song et al., "Pseudoinverse-Guided Diffusion Models", ICLR 2023.
    """

    def velocity_to_prefix(x: Tensor, time: Tensor) -> Tensor:
        with torch.inference_mode(False), torch.enable_grad():
            x = x.detach().clone().requires_grad_()
            flow = velocity(x, time)
            actions = predicted_actions(flow, x, time)
            pull = _pull(actions, x, prefix, weights)
        return flow.detach() + beside(guidance_weight(time, max_guidance), x) * pull

    return velocity_to_prefix


def guided_denoiser(
    denoiser: Denoiser, diffusion: Diffusion, prefix: Tensor, weights: Tensor, max_guidance: float = MAX_GUIDANCE
) -> Denoiser:
    """A denoiser whose chunks begin as the prefix does, of the same prediction type.

    Noisy actions a x + s z (a, s the roots of alpha_bar and 1 - alpha_bar) are flow matching's at time a / (a + s), but
    for the factor a + s; so this is `guided_velocity` there. Unclamped it is Song et al.'s guidance.

    Args:
        denoiser: the model; its timesteps are (B,).
        diffusion: its schedule and what it predicts.
        prefix: see `guided_velocity`, like the next two.
        weights: see there.
        max_guidance: see there.
    """

    def denoiser_to_prefix(noisy: Tensor, timesteps: Tensor) -> Tensor:
        share = diffusion.alpha_bars.to(noisy.device, noisy.dtype)[timesteps + 1]
        scale = share.sqrt() + (1.0 - share).sqrt()
        time = share.sqrt() / scale

        def velocity(x: Tensor, _: Tensor) -> Tensor:
            given = x * beside(scale, x)
            actions, noise = diffusion.split(denoiser(given, timesteps), given, timesteps)
            return actions - noise

        x = noisy / beside(scale, noisy)
        flow = guided_velocity(velocity, prefix, weights, max_guidance)(x, time)
        actions = predicted_actions(flow, x, time)
        return diffusion.target(actions, actions - flow, timesteps)

    return denoiser_to_prefix


def guidance_weight(time: Tensor, max_guidance: float = MAX_GUIDANCE) -> Tensor:
    """min(beta, (1 - t) / (t r^2)) with r^2 = (1 - t)^2 / (t^2 + (1 - t)^2), for t in [0, 1].

    Source: RTC, eq. 2 and 4.
    """
    left = 1.0 - time
    divisor = time * left
    unclamped = (time**2 + left**2) / divisor.clamp_min(torch.finfo(time.dtype).tiny)
    return unclamped.clamp_max(max_guidance)


def conditioned_on_prefix(model: Model, prefix: Tensor, count: Tensor, clean_time: float | int = 1.0) -> Model:
    """A model that is shown committed steps clean, each step with its own time: for models that were trained so.

    What it says of committed steps means nothing: after sampling, put them back with `with_prefix`.

    Args:
        model: a velocity or denoiser that takes times (B, H).
        prefix: (B, H, d) normalised actions; whatever past `count`.
        count: (B,) int64, committed steps.
        clean_time: 1 for flow matching, -1 for `diffusion`.

    Returns:
        The same, with times (B,).
    """

    def conditioned(x: Tensor, time: Tensor) -> Tensor:
        return model(with_prefix(x, prefix, count), step_times(time, count, x.shape[1], clean_time))

    return conditioned


def with_prefix(x: Tensor, prefix: Tensor, count: Tensor) -> Tensor:
    """A chunk (B, H, d), noisy or not, with its first `count` (B,) steps taken from another."""
    return torch.where(is_committed(count, x.shape[1])[..., None], prefix.to(x.dtype), x)


def step_times(time: Tensor, count: Tensor, horizon: int, clean_time: float | int = 1.0) -> Tensor:
    """(B,) times to (B, H) times, one a step, that of clean actions where committed. Source: arXiv 2512.05964."""
    clean = torch.full_like(time, clean_time)[:, None]
    return torch.where(is_committed(count, horizon), clean, time[:, None])


def is_committed(count: Tensor, horizon: int) -> Tensor:
    """(B,) counts to (B, H): whether a step is one of the first `count`."""
    return torch.arange(horizon, device=count.device) < count[:, None]


def sample_prefix_counts(
    batch: int, largest: int, generator: torch.Generator | None = None, device: torch.device | str = "cpu"
) -> Tensor:
    """(B,) int64 lengths of prefixes to train with, each from 0 to `largest` equally likely.

    Args:
        batch: B.
        largest: steps of the largest delay that will be met.
        generator: of the randomness.
        device: of the result, and of the generator.
    """
    return torch.randint(0, largest + 1, (batch,), generator=generator, device=device)


def free_mean(errors: Tensor, counts: Tensor, count: Tensor) -> Tensor:
    """The loss of a model that is shown a prefix: the mean of errors over what counts and is past it.

    Args:
        errors: (B, H, d).
        counts: (B, H) or (B, H, d), how much each counts: bool, or numbers from 0 on.
        count: (B,) int64, committed steps.

    Returns:
        A number, 0 if nothing counts. Source: arXiv 2512.05964.
    """
    weight = (counts if counts.ndim == errors.ndim else counts[..., None]).to(errors.dtype).expand_as(errors)
    weight = weight * ~is_committed(count, errors.shape[1])[..., None]
    total = weight.sum()
    return (errors * weight).sum() / torch.where(total > 0.0, total, 1.0)


def _pull(actions: Tensor, x: Tensor, prefix: Tensor, weights: Tensor) -> Tensor:
    """(Y - actions)^T diag(W) d actions / d x."""
    weights = weights[..., None]
    error = torch.where(weights > 0.0, weights * (prefix - actions.detach()), 0.0)
    return torch.autograd.grad(actions, x, error)[0]
