"""Diffusion Policy: a chunk of actions is denoised, conditioned on the scene by a 1-D U-Net or a transformer.

The committed prefix is given clean, with a flag beside it, and isn't learned: training-time conditioning, as for flow
matching. Averaging the weights over training (EMA), which the paper does, is the training loop's affair.

Source: Chi et al. 2023, arXiv 2303.04137, section 3 (U-Net with FiLM; transformer with causal attention over the
actions and attention over the condition); prefix: Black et al. 2025, arXiv 2512.05964.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vla_ros.policies.architectures.base import (
    ActionPrefix,
    Architecture,
    Batch,
    Inputs,
    no_prefix,
)
from vla_ros.policies.architectures.draws import make_draws, without_padding
from vla_ros.policies.architectures.layers import TransformerBlock, check_attention, check_sizes, sinusoids
from vla_ros.policies.architectures.losses import denoising_error
from vla_ros.policies.architectures.spec import ModelSpec
from vla_ros.policies.architectures.vision import GROUP, SceneEncoder, check_channels
from vla_ros.policies.representations.diffusion import Diffusion
from vla_ros.policies.representations.prefix import (
    conditioned_on_prefix,
    free_mean,
    step_times,
    with_prefix,
)

# The timestep of actions without noise, which committed ones are.
_CLEAN = -1


@dataclass(frozen=True)
class DiffusionConfig:
    """Settings of Diffusion Policy.

    Attributes:
        denoiser: `unet`, or `transformer` for actions that change quickly.
        diffusion: schedule, prediction type and clipping; where actions are normalised to [-1, 1], clip to 1.
        steps: of DDIM, at inference; at most those of training.
        width: of the scene's vector, and of the transformer's tokens.
        heads: of every attention.
        keypoints: per camera.
        draws: of noise per example, in training.
        prefix_steps: longest prefix met in training; shorter chunks have at most all but one step.
        unet_channels: of the U-Net's levels; each but the first halves the chunk.
        unet_kernel: of its convolutions, odd.
        transformer_layers: likewise of the transformer.
        mlp_width: inside of every transformer block.
        channels: of every camera's convolution net; each stage halves the image.
    """

    denoiser: Literal["unet", "transformer"] = "unet"
    diffusion: Diffusion = field(default_factory=lambda: Diffusion(clip_sample_range=5.0))
    steps: int = 10
    width: int = 128
    heads: int = 4
    keypoints: int = 16
    draws: int = 4
    prefix_steps: int = 4
    unet_channels: tuple[int, ...] = (64, 128, 256)
    unet_kernel: int = 5
    transformer_layers: int = 4
    mlp_width: int = 512
    channels: tuple[int, ...] = (32, 64, 96)

    def __post_init__(self) -> None:
        check_attention(self.width, self.heads)
        check_channels(self.channels)
        check_channels(self.unet_channels)
        check_sizes(
            keypoints=self.keypoints,
            draws=self.draws,
            transformer_layers=self.transformer_layers,
            mlp_width=self.mlp_width,
        )
        self.diffusion.timesteps(self.steps)
        if self.prefix_steps < 0 or self.unet_kernel < 1 or self.unet_kernel % 2 == 0:
            raise ValueError(
                f"prefix_steps {self.prefix_steps} is negative, or unet_kernel {self.unet_kernel} isn't odd"
            )


class DiffusionPolicy(Architecture):
    """See the module."""

    name = "diffusion"
    config_class = DiffusionConfig
    supports_prefix = True

    config: DiffusionConfig

    def __init__(self, spec: ModelSpec, config: DiffusionConfig) -> None:
        super().__init__(spec, config)
        self.scene = SceneEncoder(spec, config.channels, config.keypoints, config.width, config.heads)
        denoisers = {"unet": _Unet, "transformer": _Transformer}
        self.denoiser = denoisers[config.denoiser](spec, config)

    def losses(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        config = self.config
        scene, actions, counts, noise, count, has_action = make_draws(
            self.scene(batch.inputs), batch, config.draws, config.prefix_steps, generator
        )
        drawn = torch.randint(config.diffusion.steps, count.shape, generator=generator, device=generator.device)
        timesteps = step_times(drawn.to(actions.device), count, self.spec.horizon, _CLEAN)
        denoiser = without_padding(lambda x, t: self.denoiser(x, t, scene), has_action)
        error = denoising_error(denoiser, config.diffusion, actions, noise, timesteps)
        loss = free_mean(error, counts, count)
        return {"denoising": loss, "total": loss}

    def sample(self, inputs: Inputs, noise: Tensor, prefix: ActionPrefix | None = None) -> Tensor:
        prefix = no_prefix(noise) if prefix is None else prefix
        scene = self.scene(inputs)

        def denoise(noisy: Tensor, timesteps: Tensor) -> Tensor:
            return self.denoiser(noisy, timesteps, scene)

        conditioned = conditioned_on_prefix(
            without_padding(denoise, inputs.has_action), prefix.actions, prefix.count, _CLEAN
        )
        actions = self.config.diffusion.sample(conditioned, noise, self.config.steps)
        return with_prefix(actions, prefix.actions, prefix.count)


def _with_flags(noisy: Tensor, timesteps: Tensor) -> tuple[Tensor, Tensor]:
    """Noisy actions (B, H, d + 1) with a flag beside the committed ones, and the timestep (B,) of the others."""
    is_committed = (timesteps == _CLEAN)[..., None].to(noisy.dtype)
    return torch.cat([noisy, is_committed], dim=2), timesteps.amax(dim=1)


class _Block(nn.Module):
    """Two convolutions along time with a shortcut, scaled and shifted per channel by the condition."""

    def __init__(self, channels_in: int, channels_out: int, kernel: int, condition_width: int) -> None:
        super().__init__()
        self.first = _convolution(channels_in, channels_out, kernel)
        self.second = _convolution(channels_out, channels_out, kernel)
        self.film = nn.Sequential(nn.Mish(), nn.Linear(condition_width, 2 * channels_out))
        is_same = channels_in == channels_out
        self.shortcut = nn.Identity() if is_same else nn.Conv1d(channels_in, channels_out, 1)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        scale, shift = self.film(condition)[:, :, None].chunk(2, dim=1)
        return self.second(self.first(x) * (1.0 + scale) + shift) + self.shortcut(x)


def _convolution(channels_in: int, channels_out: int, kernel: int) -> nn.Sequential:
    padding = kernel // 2
    norm = nn.GroupNorm(channels_out // GROUP, channels_out)
    return nn.Sequential(nn.Conv1d(channels_in, channels_out, kernel, padding=padding), norm, nn.Mish())


class _Unet(nn.Module):
    """Noisy actions (B, H, d), their timesteps (B, H) and the scene (B, width) to what is predicted, (B, H, d)."""

    def __init__(self, spec: ModelSpec, config: DiffusionConfig) -> None:
        super().__init__()
        levels, kernel, condition_width = config.unet_channels, config.unet_kernel, 2 * config.width
        self.width, self.shortest = config.width, 2 ** (len(levels) - 1)
        self.from_time = nn.Sequential(nn.Linear(config.width, config.width), nn.Mish())
        before = (spec.action_width + 1, *levels[:-1])
        self.down = nn.ModuleList(
            _Block(cin, cout, kernel, condition_width) for cin, cout in zip(before, levels, strict=True)
        )
        self.downsample = nn.ModuleList(nn.Conv1d(count, count, 3, 2, 1) for count in levels[:-1])
        self.middle = _Block(levels[-1], levels[-1], kernel, condition_width)
        self.upsample = nn.ModuleList(nn.ConvTranspose1d(deep, flat, 4, 2, 1) for flat, deep in pairwise(levels))
        self.up = nn.ModuleList(_Block(2 * count, count, kernel, condition_width) for count in levels[:-1])
        self.output = nn.Sequential(
            _convolution(levels[0], levels[0], kernel), nn.Conv1d(levels[0], spec.action_width, 1)
        )

    def forward(self, noisy: Tensor, timesteps: Tensor, scene: Tensor) -> Tensor:
        x, timestep = _with_flags(noisy, timesteps)
        condition = torch.cat([scene, self.from_time(sinusoids(timestep, self.width))], dim=1)
        horizon = noisy.shape[1]
        x = F.pad(x.transpose(1, 2), (0, -horizon % self.shortest))
        skipped = []
        for block, downsample in zip(self.down, self.downsample, strict=False):
            skipped.append(block(x, condition))
            x = downsample(skipped[-1])
        x = self.middle(self.down[-1](x, condition), condition)
        for upsample, up in reversed(list(zip(self.upsample, self.up, strict=True))):
            x = up(torch.cat([upsample(x), skipped.pop()], dim=1), condition)
        return self.output(x)[:, :, :horizon].transpose(1, 2)


class _Transformer(nn.Module):
    """The same as `_Unet` with tokens: every action sees those before it, the timestep and the scene."""

    def __init__(self, spec: ModelSpec, config: DiffusionConfig) -> None:
        super().__init__()
        width = config.width
        self.from_action = nn.Linear(spec.action_width + 1, width)
        self.from_time = nn.Sequential(nn.Linear(width, width), nn.Mish(), nn.Linear(width, width))
        self.memory_norm = nn.LayerNorm(width)
        self.blocks = nn.ModuleList(
            TransformerBlock(width, config.heads, config.mlp_width, has_memory=True)
            for _ in range(config.transformer_layers)
        )
        self.output = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, spec.action_width))

    def forward(self, noisy: Tensor, timesteps: Tensor, scene: Tensor) -> Tensor:
        flagged, timestep = _with_flags(noisy, timesteps)
        x = self.from_action(flagged)
        steps = torch.arange(x.shape[1], device=x.device)
        x = x + sinusoids(steps, x.shape[2])
        time = self.from_time(sinusoids(timestep, x.shape[2]))
        memory = self.memory_norm(torch.stack([time, scene], dim=1))
        is_past = (steps <= steps[:, None])[None, None]
        for block in self.blocks:
            x = block(x, memory, is_past)
        return self.output(x)
