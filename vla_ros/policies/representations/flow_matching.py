"""Conditional flow matching over action chunks: training pairs, time sampling, solvers, and classifier-free guidance.

Time runs from 0, noise, to 1, actions, on the straight line x_t = (1 - t) noise + t actions, with the velocity
actions - noise. openpi's code (pi0, pi0.5) and what follows it run from 1, noise, to 0, with the velocity
noise - actions: `with_time_reversed` turns either into the other.

Source: Lipman et al., "Flow Matching for Generative Modeling", arXiv 2210.02747; Black et al., "pi0", arXiv 2410.24164.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor

from vla_ros.errors import UnknownNameError

# Actions on their way (B, H, d) and time (B,) or (B, H) to their velocity (B, H, d).
Velocity = Callable[[Tensor, Tensor], Tensor]
# Any model of x and time whose output is linear in noise and actions: a velocity, or a denoiser.
Model = Callable[[Tensor, Tensor], Tensor]
Solver = Literal["euler", "midpoint", "heun"]

_SOLVERS = get_args(Solver)

# pi0 draws times from a beta distribution up to here: its last step of sampling begins earlier anyway.
_PI0_LATEST = 0.999


def interpolate(noise: Tensor, actions: Tensor, time: Tensor) -> Tensor:
    """Where the line from noise to actions, (B, H, d), is at a time, (B,) or (B, H). Source: pi0, IV."""
    t = beside(time, actions)
    return (1.0 - t) * noise + t * actions


def target_velocity(noise: Tensor, actions: Tensor) -> Tensor:
    """What a velocity should have said of `interpolate(noise, actions, time)`, at every time."""
    return actions - noise


def predicted_actions(velocity: Tensor, x: Tensor, time: Tensor) -> Tensor:
    """The actions that a velocity at x leads to, in one stride. Source: RTC, arXiv 2506.07339, eq. 3."""
    return x + (1.0 - beside(time, x)) * velocity


def beside(value: Tensor, x: Tensor) -> Tensor:
    """A number a chunk (B,), or a step (B, H), shaped to multiply x (B, H, d)."""
    return value.reshape(*value.shape, *[1] * (x.ndim - value.ndim))


def sample_times(
    batch: int,
    distribution: Literal["uniform", "pi0_beta"] = "uniform",
    generator: torch.Generator | None = None,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Tensor:
    """(B,) times to train at.

    Args:
        batch: B.
        distribution: `uniform` in [0, 1), or `pi0_beta`, where 1 - t is 0.999 b + 0.001 with b from beta(1.5, 1): noisy
            ones are more frequent.
        generator: of the randomness.
        dtype: of the result.
        device: of the result, and of the generator.

    Source: pi0, appendix B, and openpi's `compute_loss`.
    """
    uniform = torch.rand(batch, generator=generator, dtype=dtype, device=device)
    # beta(1.5, 1) has the distribution function b ** 1.5.
    return uniform if distribution == "uniform" else _PI0_LATEST * (1.0 - uniform ** (1.0 / 1.5))


def integrate(
    velocity: Velocity, noise: Tensor, steps: int, solver: Solver = "euler", start: float = 0.0, end: float = 1.0
) -> Tensor:
    """Follows a velocity from noise to actions.

    Args:
        velocity: called with times of shape (B,).
        noise: (B, ...) where to begin.
        steps: of equal length.
        solver: `euler` (of first order, one call a step), `midpoint` or `heun` (of second order, two calls a step).
        start: time to begin at.
        end: time to end at; may be the earlier one.

    Returns:
        (B, ...), the same for the same noise.
    """
    if solver not in _SOLVERS:
        raise UnknownNameError("solver", solver, _SOLVERS)
    if steps < 1:
        raise ValueError(f"{steps} steps lead nowhere")
    h = (end - start) / steps
    x = noise
    for step in range(steps):
        t = start + step * h
        k1 = velocity(x, _times(x, t))
        if solver == "euler":
            x = x + h * k1
        elif solver == "midpoint":
            x = x + h * velocity(x + 0.5 * h * k1, _times(x, t + 0.5 * h))
        else:
            x = x + 0.5 * h * (k1 + velocity(x + h * k1, _times(x, t + h)))
    return x


def with_time_reversed(velocity: Velocity) -> Velocity:
    """A velocity of openpi's time (1 noise, 0 actions) as one of ours, or the other way round."""

    def reversed_velocity(x: Tensor, time: Tensor) -> Tensor:
        return -velocity(x, 1.0 - time)

    return reversed_velocity


def guided(conditional: Model, unconditional: Model, scale: float) -> Model:
    """Classifier-free guidance, for velocities and for denoisers of any prediction type: all are linear in the score.

    Args:
        conditional: the model with its condition (instruction, images, ...).
        unconditional: the model with what stood for none in training.
        scale: 0 is without the condition, 1 with it, more exaggerates it. The other model isn't called at 0 and 1.

    Source: Ho and Salimans, arXiv 2207.12598, eq. 6, with scale = 1 + w.
    """
    if scale == 1.0:
        return conditional
    if scale == 0.0:
        return unconditional

    def guided_model(x: Tensor, time: Tensor) -> Tensor:
        without = unconditional(x, time)
        return without + scale * (conditional(x, time) - without)

    return guided_model


def _times(x: Tensor, time: float) -> Tensor:
    return torch.full(x.shape[:1], time, dtype=x.dtype, device=x.device)
