"""Denoising diffusion over action chunks: noise schedules, what a model predicts, and the steps back to actions.

Timestep t counts from 0, nearly clean, to `steps - 1`, nearly noise; -1 is clean. Tables are made in float32 as
`diffusers` makes them, since that is what checkpoints were trained with; everything else is in the precision of the
tensors that come in.

Source: Ho et al., "Denoising Diffusion Probabilistic Models" (DDPM), arXiv 2006.11239; Song et al., "Denoising
Diffusion Implicit Models" (DDIM), arXiv 2010.02502; v: Salimans and Ho, arXiv 2202.00512.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from vla_ros.errors import UnknownNameError
from vla_ros.policies.representations.flow_matching import beside

# Noisy actions (B, H, d) and their timesteps (B,) or (B, H), int64, to what the model predicts, (B, H, d).
Denoiser = Callable[[Tensor, Tensor], Tensor]
Prediction = Literal["epsilon", "sample", "v_prediction"]

Schedule = Literal["linear", "scaled_linear", "squaredcos_cap_v2"]
Method = Literal["ddpm", "ddim"]

_PREDICTIONS, _SCHEDULES, _METHODS = get_args(Prediction), get_args(Schedule), get_args(Method)
_LARGEST_BETA = 0.999
_COSINE_OFFSET = 0.008


@dataclass(frozen=True)
class Diffusion:
    """A noise schedule and what is predicted; the names are those of `diffusers`.

    Attributes:
        steps: T, of training.
        beta_schedule: `linear`, `scaled_linear` (its square root is) or `squaredcos_cap_v2` (the cosine schedule).
        beta_start: first beta; unused by the cosine schedule.
        beta_end: last beta; likewise.
        prediction_type: the model's output: the noise (`epsilon`), the actions (`sample`) or `v_prediction`,
            sqrt(alpha_bar) noise - sqrt(1 - alpha_bar) actions.
        clip_sample_range: predicted actions are clipped to plus and minus it in every step; None to leave them.
    """

    steps: int = 100
    beta_schedule: Schedule = "squaredcos_cap_v2"
    beta_start: float = 1e-4
    beta_end: float = 0.02
    prediction_type: Prediction = "epsilon"
    clip_sample_range: float | None = 1.0

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"{self.steps} steps are none")
        if not 0.0 < self.beta_start <= self.beta_end < 1.0:
            raise ValueError(f"beta from {self.beta_start} to {self.beta_end}: needs 0 < start <= end < 1")
        if self.clip_sample_range is not None and not self.clip_sample_range > 0.0:
            raise ValueError(
                f"clip_sample_range {self.clip_sample_range} isn't positive; null leaves actions unclipped"
            )
        for name, known in (("beta_schedule", _SCHEDULES), ("prediction_type", _PREDICTIONS)):
            if getattr(self, name) not in known:
                raise UnknownNameError(name, getattr(self, name), known)
        _ = self._table  # Made while a model is traced for export, the tables would be symbols.

    @cached_property
    def betas(self) -> Tensor:
        """(T,) float32 variances of the noise added in each step. Source: DDPM, 4; cosine: arXiv 2102.09672, eq. 17."""
        if self.beta_schedule == "linear":
            return torch.linspace(self.beta_start, self.beta_end, self.steps, dtype=torch.float32)
        if self.beta_schedule == "scaled_linear":
            return torch.linspace(self.beta_start**0.5, self.beta_end**0.5, self.steps, dtype=torch.float32) ** 2
        ends = [_cosine(step / self.steps) for step in range(self.steps + 1)]
        betas = [min(1.0 - after / before, _LARGEST_BETA) for before, after in pairwise(ends)]
        return torch.tensor(betas, dtype=torch.float32)

    @cached_property
    def alpha_bars(self) -> Tensor:
        """(T + 1,) float32 share of the actions' variance that is left; entry t + 1 is timestep t, entry 0 is clean."""
        return torch.cat([torch.ones(1), torch.cumprod(1.0 - self.betas, dim=0)])

    def add_noise(self, actions: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Actions (B, ...) as they are at timesteps (B,), or (B, H) with one a step. Source: DDPM, eq. 4."""
        kept, added = self._roots(timesteps, actions)
        return kept * actions + added * noise

    def target(self, actions: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """What the model should have said of `add_noise(actions, noise, timesteps)`."""
        if self.prediction_type == "epsilon":
            return noise
        if self.prediction_type == "sample":
            return actions
        kept, added = self._roots(timesteps, actions)
        return kept * noise - added * actions

    def split(self, output: Tensor, noisy: Tensor, timesteps: Tensor) -> tuple[Tensor, Tensor]:
        """Actions and noise that a model's output stands for, unclipped.

        Args:
            output: the model's.
            noisy: what it was given, (B, ...).
            timesteps: (B,) or (B, H), at least 0.
        """
        return self._split(output, noisy, *self._roots(timesteps, noisy))

    def timesteps(self, count: int) -> list[int]:
        """The timesteps of a sampling in `count` steps, descending, evenly spaced and ending with 0."""
        if not 1 <= count <= self.steps:
            raise ValueError(f"{count} sampling steps: the model was trained with {self.steps}, so 1 to that many")
        stride = self.steps // count
        return [index * stride for index in reversed(range(count))]

    def ddpm_step(self, output: Tensor, noisy: Tensor, timestep: int, previous: int, noise: Tensor | None) -> Tensor:
        """One step of ancestral sampling, with the smaller of the two variances. Source: DDPM, eq. 6 and 7.

        Args:
            output: the model's for `noisy` at `timestep`.
            noisy: actions at `timestep`.
            timestep: from where.
            previous: to where; -1 for clean actions.
            noise: standard normal; None only for the step to clean actions, which adds none.
        """
        here, there = self._table[timestep + 1], self._table[previous + 1]
        actions, _ = self._predict(output, noisy, here)
        beta = 1.0 - here / there
        mean = there**0.5 * beta / (1.0 - here) * actions + (here / there) ** 0.5 * (1.0 - there) / (1.0 - here) * noisy
        return _with_noise(mean, ((1.0 - there) / (1.0 - here) * beta) ** 0.5, noise)

    def ddim_step(
        self, output: Tensor, noisy: Tensor, timestep: int, previous: int, eta: float = 0.0, noise: Tensor | None = None
    ) -> Tensor:
        """One implicit step. Source: DDIM, eq. 12 and 16.

        Args:
            output: as in `ddpm_step`, like the next three.
            noisy: see there.
            timestep: see there.
            previous: see there.
            eta: 0 is deterministic, 1 has DDPM's variance.
            noise: standard normal; not looked at where eta is 0.
        """
        here, there = self._table[timestep + 1], self._table[previous + 1]
        actions, predicted_noise = self._predict(output, noisy, here)
        deviation = eta * ((1.0 - there) / (1.0 - here) * (1.0 - here / there)) ** 0.5
        mean = there**0.5 * actions + max(0.0, 1.0 - there - deviation**2) ** 0.5 * predicted_noise
        return _with_noise(mean, deviation, noise)

    def sample(
        self,
        denoiser: Denoiser,
        noise: Tensor,
        count: int,
        method: Method = "ddim",
        eta: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """From noise to actions.

        Args:
            denoiser: the model; its timesteps are (B,).
            noise: (B, H, d), standard normal.
            count: steps, at most those of training.
            method: `ddpm` or `ddim`.
            eta: of `ddim`.
            generator: of the noise that is added on the way; not used by `ddim` with eta 0.

        Returns:
            (B, H, d) actions, the same for the same noise and generator.
        """
        if method not in _METHODS:
            raise UnknownNameError("sampling method", method, _METHODS)
        x, timesteps = noise, self.timesteps(count)
        is_random = method == "ddpm" or eta > 0.0
        for timestep, previous in zip(timesteps, [*timesteps[1:], -1], strict=True):
            output = denoiser(x, torch.full(x.shape[:1], timestep, dtype=torch.int64, device=x.device))
            added = torch.randn(x.shape, generator=generator, dtype=x.dtype, device=x.device) if is_random else None
            if method == "ddpm":
                x = self.ddpm_step(output, x, timestep, previous, added)
            else:
                x = self.ddim_step(output, x, timestep, previous, eta, added)
        return x

    @cached_property
    def _table(self) -> list[float]:
        return self.alpha_bars.tolist()

    def _roots(self, timesteps: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """Shares of actions and noise at some timesteps, shaped to multiply a tensor."""
        share = beside(self.alpha_bars.to(like.device, like.dtype)[timesteps + 1], like)
        return share.sqrt(), (1.0 - share).sqrt()

    def _split(self, output: Tensor, noisy: Tensor, kept: Any, added: Any) -> tuple[Tensor, Tensor]:
        if self.prediction_type == "epsilon":
            return (noisy - added * output) / kept, output
        if self.prediction_type == "sample":
            return output, (noisy - kept * output) / added
        return kept * noisy - added * output, kept * output + added * noisy

    def _predict(self, output: Tensor, noisy: Tensor, alpha_bar: float) -> tuple[Tensor, Tensor]:
        """Actions, clipped, and noise; the noise isn't made to fit the clipped actions, as in `diffusers`."""
        actions, noise = self._split(output, noisy, alpha_bar**0.5, (1.0 - alpha_bar) ** 0.5)
        if self.clip_sample_range is not None:
            actions = actions.clamp(-self.clip_sample_range, self.clip_sample_range)
        return actions, noise


def _cosine(share: float) -> float:
    return math.cos((share + _COSINE_OFFSET) / (1.0 + _COSINE_OFFSET) * math.pi / 2.0) ** 2


def _with_noise(mean: Tensor, deviation: float, noise: Tensor | None) -> Tensor:
    if deviation == 0.0:
        return mean
    if noise is None:
        raise ValueError(f"this step adds noise of standard deviation {deviation:.3g}: give it")
    return mean + deviation * noise
