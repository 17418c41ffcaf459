"""The losses of the handbook, as functions of tensors: what networks are trained with, each written once.

Chunks are (B, H, d). `counts` says how much each number counts, (B, H) or (B, H, d), bool or a weight: see
`base.action_counts`. What counts for nothing may hold anything finite. Where the auxiliary localisation's loss is:
`vision.localisation_loss`; where a prefix is committed, `representations.prefix.free_mean` takes the mean.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from vla_ros.errors import UnknownNameError
from vla_ros.geometry.rotation_forms import TO_MATRIX
from vla_ros.geometry.rotations import angle_between
from vla_ros.policies.architectures.base import draw_normal, masked_mean
from vla_ros.policies.representations.diffusion import Denoiser, Diffusion
from vla_ros.policies.representations.flow_matching import Velocity, interpolate, target_velocity

ChunkError = Literal["mse", "l1"]


def chunk_error(predicted: Tensor, actions: Tensor, counts: Tensor, kind: ChunkError = "l1") -> Tensor:
    """Mean squared or mean absolute difference of two chunks. L1 is ACT's: it forgives a few wrong demonstrations."""
    if kind not in ("mse", "l1"):
        raise UnknownNameError("error of a chunk", kind, ("mse", "l1"))
    difference = predicted - actions
    return masked_mean(difference.square() if kind == "mse" else difference.abs(), counts)


def gaussian_nll(mean: Tensor, log_std: Tensor, value: Tensor) -> Tensor:
    """Negative log density of values under independent normal distributions, elementwise."""
    return 0.5 * ((value - mean) * (-log_std).exp()).square() + log_std + 0.5 * math.log(2.0 * math.pi)


def token_cross_entropy(logits: Tensor, tokens: Tensor, counts: Tensor) -> Tensor:
    """Negative log-likelihood of tokens, averaged over those that count: of words, or of binned actions.

    Args:
        logits: (B, n, V).
        tokens: (B, n) int64; anything in [0, V) where nothing counts.
        counts: (B, n).
    """
    nll = F.cross_entropy(logits.flatten(0, -2), tokens.flatten(), reduction="none").reshape(tokens.shape)
    return masked_mean(nll[..., None], counts)


def distillation_kl(student: Tensor, teacher: Tensor, counts: Tensor, temperature: float = 1.0) -> Tensor:
    """T^2 KL(teacher || student) of two distributions softened by a temperature, averaged over what counts.

    T^2 keeps the gradient's size where the temperature changes. No gradient reaches the teacher.

    Args:
        student: (B, n, V) logits.
        teacher: (B, n, V) logits.
        counts: (B, n).
        temperature: T, above 0; the higher, the more the unlikely tokens say.

    Source: Hinton, Vinyals and Dean, arXiv 1503.02531, section 2.
    """
    wanted, given = (logits / temperature for logits in (teacher.detach(), student))
    kl = F.kl_div(given.log_softmax(-1), wanted.log_softmax(-1), reduction="none", log_target=True).sum(-1)
    return temperature**2 * masked_mean(kl[..., None], counts)


def kl_to_standard_normal(mean: Tensor, log_variance: Tensor, weight: Tensor | None = None) -> Tensor:
    """KL divergence of N(mean, diag exp(log_variance)) (B, n) from N(0, 1), summed over n, averaged over B.

    Args:
        mean: (B, n).
        log_variance: (B, n).
        weight: (B,) of each example; None for the same.

    Source: Kingma & Welling 2013, arXiv 1312.6114, appendix B.
    """
    kl = 0.5 * (mean.square() + log_variance.exp() - 1.0 - log_variance).sum(dim=1)
    return kl.mean() if weight is None else masked_mean(kl[:, None, None], weight[:, None])


def reparameterise(mean: Tensor, log_variance: Tensor, generator: torch.Generator) -> Tensor:
    """A draw from N(mean, diag exp(log_variance)) through which gradients pass.

    Source: Kingma & Welling 2013, arXiv 1312.6114, section 2.4.
    """
    return mean + (0.5 * log_variance).exp() * draw_normal(mean, generator)


def denoising_error(
    denoiser: Denoiser, diffusion: Diffusion, actions: Tensor, noise: Tensor, timesteps: Tensor
) -> Tensor:
    """Squared errors (B, H, d) of what a denoiser says of noisy actions at timesteps (B,) or (B, H).

    Source: DDPM, arXiv 2006.11239, eq. 14.
    """
    output = denoiser(diffusion.add_noise(actions, noise, timesteps), timesteps)
    return (output - diffusion.target(actions, noise, timesteps)).square()


def flow_error(velocity: Velocity, actions: Tensor, noise: Tensor, time: Tensor) -> Tensor:
    """Squared errors (B, H, d) of a velocity on the straight line from noise to actions at times (B,) or (B, H).

    Source: Lipman et al., arXiv 2210.02747, eq. 23 with sigma_min 0.
    """
    return (velocity(interpolate(noise, actions, time), time) - target_velocity(noise, actions)).square()


def smoothness(actions: Tensor, counts: Tensor, order: int = 1, period_s: float = 1.0) -> Tensor:
    """Mean squared n-th difference along a chunk, over those of which all steps count.

    Of positions the second is an acceleration and the third a jerk. With the period in s the result is in units/s^n,
    squared; by default the period is the unit of time. A chunk that is too short has none, which is 0.

    Args:
        actions: (B, H, d).
        counts: (B, H) or (B, H, d); where steps count differently, the least of them does.
        order: n, at least 1.
        period_s: of the chunk's steps.
    """
    if order < 1 or not period_s > 0.0:
        raise ValueError(f"order {order} is below 1, or period_s {period_s} isn't positive")
    if actions.shape[1] <= order:
        return actions.sum() * 0.0
    windows = counts.unfold(1, order + 1, 1)
    least = windows.all(dim=-1) if counts.dtype == torch.bool else windows.amin(dim=-1)
    return masked_mean((actions.diff(n=order, dim=1) / period_s**order).square(), least)


def quaternion_distance(a: Tensor, b: Tensor) -> Tensor:
    """Squared distance (...) of two quaternions (..., 4) on the unit sphere, q and -q being the same rotation.

    min(|a - b|^2, |a + b|^2) = 2 - 2 |a . b|, from 0 to 2; half of a small angle, squared. They need not be
    of unit length, and which component is the scalar doesn't matter.
    """
    a, b = F.normalize(a, dim=-1), F.normalize(b, dim=-1)
    # Of the difference itself, since 1 - cos loses its digits where the two are near.
    sign = torch.where((a * b).sum(-1, keepdim=True).detach() < 0.0, -1.0, 1.0)
    return (a - sign * b).square().sum(-1)


def rotation_error_rad(predicted: Tensor, wanted: Tensor, form: str, counts: Tensor) -> Tensor:
    """Mean angle between two chunks of rotations, rad in [0, pi].

    Args:
        predicted: (B, H, k) in real units, in any form that a contract knows.
        wanted: likewise.
        form: `rotvec`, `rpy`, `quat_xyzw`, `rot6d` or `rot6d_rows`.
        counts: (B, H).
    """
    if form not in TO_MATRIX:
        raise UnknownNameError("rotation form", form, TO_MATRIX)
    to_matrix: Any = TO_MATRIX[form]  # For tensors as well as for arrays.
    angle = angle_between(to_matrix(predicted), to_matrix(wanted))
    return masked_mean(angle[..., None], counts)
