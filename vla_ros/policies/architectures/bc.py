"""Behaviour cloning with a Gaussian: the floor that every other network has to rise above.

One mean and one standard deviation for every number of the chunk. It averages several ways of doing a thing, where the
others choose one.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vla_ros.policies.architectures.base import (
    ActionPrefix,
    Architecture,
    Batch,
    Inputs,
    action_counts,
    clean_actions,
    masked_mean,
    refuse_prefix,
)
from vla_ros.policies.architectures.layers import check_attention, check_sizes
from vla_ros.policies.architectures.losses import gaussian_nll, smoothness
from vla_ros.policies.architectures.spec import ModelSpec
from vla_ros.policies.architectures.vision import SceneEncoder, check_channels


@dataclass(frozen=True)
class BcConfig:
    """Settings of behaviour cloning.

    Attributes:
        width: of the scene's vector and the hidden layers.
        heads: of the instruction's attention.
        layers: hidden layers behind the scene's vector.
        keypoints: per camera.
        smoothness_weight: of the mean squared difference of consecutive mean actions.
        log_std_min: lower limit of the predicted log standard deviation.
        log_std_max: upper limit.
        channels: of every camera's convolution net; each stage halves the image.
    """

    width: int = 256
    heads: int = 4
    layers: int = 2
    keypoints: int = 16
    smoothness_weight: float = 0.1
    log_std_min: float = -4.0
    log_std_max: float = 2.0
    channels: tuple[int, ...] = (32, 64, 96)

    def __post_init__(self) -> None:
        check_attention(self.width, self.heads)
        check_channels(self.channels)
        check_sizes(layers=self.layers, keypoints=self.keypoints)
        if self.smoothness_weight < 0.0:
            raise ValueError(f"smoothness_weight {self.smoothness_weight} is negative")
        if not self.log_std_min < self.log_std_max:
            raise ValueError(f"log_std_min {self.log_std_min} isn't below log_std_max {self.log_std_max}")


class Bc(Architecture):
    """See the module."""

    name = "bc"
    config_class = BcConfig
    uses_noise = False

    config: BcConfig

    def __init__(self, spec: ModelSpec, config: BcConfig) -> None:
        super().__init__(spec, config)
        width = config.width
        self.scene = SceneEncoder(spec, config.channels, config.keypoints, width, config.heads)
        hidden = [layer for _ in range(config.layers) for layer in (nn.Linear(width, width), nn.GELU())]
        self.head = nn.Sequential(nn.GELU(), *hidden, nn.Linear(width, 2 * spec.horizon * spec.action_width))

    def losses(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        mean, log_std = self.distribution(batch.inputs)
        counts = action_counts(batch)
        nll = masked_mean(gaussian_nll(mean, log_std, clean_actions(batch)), counts)
        rough = smoothness(mean, counts)
        return {"nll": nll, "smoothness": rough, "total": nll + self.config.smoothness_weight * rough}

    def sample(self, inputs: Inputs, noise: Tensor, prefix: ActionPrefix | None = None) -> Tensor:
        refuse_prefix(self, prefix)
        return self.distribution(inputs)[0]

    def distribution(self, inputs: Inputs) -> tuple[Tensor, Tensor]:
        """Mean and log standard deviation of the actions, (B, H, d) each."""
        flat = self.head(self.scene(inputs)).reshape(-1, self.spec.horizon, 2 * self.spec.action_width)
        mean, log_std = flat.chunk(2, dim=2)
        return mean, log_std.clamp(self.config.log_std_min, self.config.log_std_max)
