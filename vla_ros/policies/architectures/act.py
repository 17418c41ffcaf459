"""Action Chunking with Transformers: a conditional variational autoencoder whose decoder reads images and state.

Source: Zhao et al. 2023, arXiv 2304.13705, section IV-C and appendix C. Different here: small convolution nets of our
own in the place of a pretrained ResNet-18, normalisation before attention, and an instruction where the vocabulary
isn't empty.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vla_ros.policies.architectures.base import (
    ActionPrefix,
    Architecture,
    Batch,
    Inputs,
    action_counts,
    clean_actions,
    refuse_prefix,
)
from vla_ros.policies.architectures.layers import (
    InstructionEncoder,
    TransformerBlock,
    check_attention,
    check_sizes,
    sinusoids,
)
from vla_ros.policies.architectures.losses import chunk_error, kl_to_standard_normal, reparameterise
from vla_ros.policies.architectures.spec import ModelSpec
from vla_ros.policies.architectures.vision import ImageEncoder, cell_centres, check_channels


@dataclass(frozen=True)
class ActConfig:
    """Settings of ACT.

    Attributes:
        width: of every token.
        heads: of every attention.
        mlp_width: inside of every transformer block.
        posterior_layers: of the encoder that sees the actions, in training only.
        encoder_layers: over images, state and latent.
        decoder_layers: over the actions' queries.
        latent_width: of z.
        kl_weight: beta; the larger, the less of the actions' style goes through z.
        dropout: in training.
        channels: of every camera's convolution net; each stage halves the image.
    """

    width: int = 256
    heads: int = 8
    mlp_width: int = 1024
    posterior_layers: int = 2
    encoder_layers: int = 4
    decoder_layers: int = 2
    latent_width: int = 32
    kl_weight: float = 10.0
    dropout: float = 0.1
    channels: tuple[int, ...] = (32, 64, 128, 256)

    def __post_init__(self) -> None:
        check_attention(self.width, self.heads)
        check_channels(self.channels)
        check_sizes(
            mlp_width=self.mlp_width,
            posterior_layers=self.posterior_layers,
            encoder_layers=self.encoder_layers,
            decoder_layers=self.decoder_layers,
            latent_width=self.latent_width,
        )
        if self.kl_weight < 0.0 or not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"kl_weight {self.kl_weight} is negative, or dropout {self.dropout} isn't in [0, 1)")


class Act(Architecture):
    """See the module."""

    name = "act"
    config_class = ActConfig
    uses_noise = False

    config: ActConfig

    def __init__(self, spec: ModelSpec, config: ActConfig) -> None:
        super().__init__(spec, config)
        width = config.width
        self.posterior = _Posterior(spec, config)
        self.instruction = InstructionEncoder(spec, width, config.heads) if spec.takes_language else None
        condition_width = width if spec.takes_language else 0
        self.cameras = nn.ModuleList(ImageEncoder(config.channels, condition_width) for _ in spec.images)
        self.from_map = nn.ModuleList(nn.Conv2d(config.channels[-1], width, 1) for _ in spec.images)
        self.from_latent = nn.Linear(config.latent_width, width)
        self.from_state = nn.Linear(spec.state_width, width)
        self.encoder = nn.ModuleList(_block(config, False) for _ in range(config.encoder_layers))
        self.encoder_norm = nn.LayerNorm(width)
        self.queries = nn.Parameter(0.02 * torch.randn(spec.horizon, width))
        self.decoder = nn.ModuleList(_block(config, True) for _ in range(config.decoder_layers))
        self.to_action = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, spec.action_width))

    def losses(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        actions = clean_actions(batch)
        mean, log_variance = self.posterior(batch.inputs.state, actions, batch.is_valid)
        latent = reparameterise(mean, log_variance, generator)
        l1 = chunk_error(self._decode(batch.inputs, latent), actions, action_counts(batch), "l1")
        losses = {"l1": l1, "kl": kl_to_standard_normal(mean, log_variance, batch.weight)}
        return {**losses, "total": losses["l1"] + self.config.kl_weight * losses["kl"]}

    def sample(self, inputs: Inputs, noise: Tensor, prefix: ActionPrefix | None = None) -> Tensor:
        refuse_prefix(self, prefix)
        return self._decode(inputs, inputs.state.new_zeros(len(inputs.state), self.config.latent_width))

    def _decode(self, inputs: Inputs, latent: Tensor) -> Tensor:
        condition = None if self.instruction is None else self.instruction(inputs.words)
        tokens = [self.from_latent(latent)[:, None], self.from_state(inputs.state)[:, None]]
        tokens += [] if condition is None else [condition[:, None]]
        for i, (camera, from_map) in enumerate(zip(self.cameras, self.from_map, strict=True)):
            features = from_map(camera(inputs.images[:, i], condition))
            cells = 100.0 * cell_centres(features.shape[2], features.shape[3], features)
            # 100 by 100 positions over the image: the sines tell cells apart at any grid.
            places = sinusoids(cells, self.config.width // 2).flatten(2).flatten(0, 1)
            tokens.append(features.flatten(2).transpose(1, 2) + places)
        memory = torch.cat(tokens, dim=1)
        for block in self.encoder:
            memory = block(memory)
        memory = self.encoder_norm(memory)
        x = self.queries.expand(len(latent), -1, -1)
        for block in self.decoder:
            x = block(x, memory)
        return self.to_action(x)


class _Posterior(nn.Module):
    """State and actions to mean and log variance (B, latent_width) of z: the encoder of the autoencoder."""

    def __init__(self, spec: ModelSpec, config: ActConfig) -> None:
        super().__init__()
        self.summary = nn.Parameter(0.02 * torch.randn(config.width))
        self.from_state = nn.Linear(spec.state_width, config.width)
        self.from_action = nn.Linear(spec.action_width, config.width)
        self.blocks = nn.ModuleList(_block(config, False) for _ in range(config.posterior_layers))
        self.to_latent = nn.Sequential(nn.LayerNorm(config.width), nn.Linear(config.width, 2 * config.latent_width))

    def forward(self, state: Tensor, actions: Tensor, is_valid: Tensor) -> tuple[Tensor, Tensor]:
        summary = self.summary.expand(len(actions), 1, -1)
        x = torch.cat([summary, self.from_state(state)[:, None], self.from_action(actions)], dim=1)
        x = x + sinusoids(torch.arange(x.shape[1], device=x.device), x.shape[2])
        is_key = F.pad(is_valid, (2, 0), value=True)[:, None, None, :]
        for block in self.blocks:
            x = block(x, mask=is_key)
        mean, log_variance = self.to_latent(x[:, 0]).chunk(2, dim=1)
        return mean, log_variance


def _block(config: ActConfig, has_memory: bool) -> TransformerBlock:
    return TransformerBlock(config.width, config.heads, config.mlp_width, has_memory, config.dropout)
