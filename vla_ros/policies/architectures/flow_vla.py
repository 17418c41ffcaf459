"""A small vision-language-action network: keypoints that the instruction asks for, and actions by flow matching.

Each camera's convolution net is steered by the instruction (FiLM), and the instruction asks its map for some keypoints,
the first of which are the things that it means: what is to be moved, and where to. From all of them the network says
where these things are relative to the tool; a transformer then carries noise to actions, looking at keypoints, state,
instruction and the relative poses. The context is encoded once, in training for several draws of noise, at inference
for all steps of the integration.

Source: flow matching for actions: Black et al. 2024, arXiv 2410.24164, section IV and appendix B (with Beta-distributed
times; uniform here); prefix: Black et al. 2025, arXiv 2512.05964; FiLM: Perez et al. 2017, arXiv 1709.07871.
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
    counted_mean,
    no_prefix,
)
from vla_ros.policies.architectures.draws import make_draws, without_padding
from vla_ros.policies.architectures.layers import (
    InstructionEncoder,
    TransformerBlock,
    check_attention,
    check_sizes,
    sinusoids,
)
from vla_ros.policies.architectures.losses import flow_error
from vla_ros.policies.architectures.spec import ModelSpec
from vla_ros.policies.architectures.vision import (
    ImageEncoder,
    check_channels,
    localisation_loss,
    map_channels,
    soft_argmax,
)
from vla_ros.policies.representations.flow_matching import integrate, sample_times
from vla_ros.policies.representations.prefix import (
    conditioned_on_prefix,
    free_mean,
    step_times,
    with_prefix,
)


@dataclass(frozen=True)
class FlowVlaConfig:
    """Settings of the small VLA.

    Attributes:
        width: of every token.
        heads: of every attention.
        mlp_width: inside of every transformer block.
        layers: of the transformer over actions.
        keypoints: that the instruction asks for, per camera; the first ones are where the things meant are.
        things: that an instruction means at most.
        target_pose_width: numbers of each predicted relative pose.
        draws: of noise per example, in training.
        steps: of Euler's method, at inference.
        prefix_steps: longest prefix met in training; shorter chunks have at most all but one step.
        localisation_weight: of the auxiliary loss on the first keypoints, where `Batch.target_xy` says it.
        pose_weight: of the auxiliary loss on the relative poses, where `Batch.target_pose` says it.
        channels: of every camera's convolution net; each stage halves the image.
        levels: sizes of its maps, the coarsest first, that are joined into the one in which keypoints are looked for;
            with each that one is twice as fine.
    """

    width: int = 128
    heads: int = 4
    mlp_width: int = 256
    layers: int = 3
    keypoints: int = 4
    things: int = 2
    target_pose_width: int = 5
    draws: int = 4
    steps: int = 5
    prefix_steps: int = 4
    localisation_weight: float = 0.5
    pose_weight: float = 0.5
    channels: tuple[int, ...] = (32, 64, 64)
    levels: int = 1

    def __post_init__(self) -> None:
        check_attention(self.width, self.heads)
        check_channels(self.channels)
        check_sizes(
            mlp_width=self.mlp_width,
            layers=self.layers,
            keypoints=self.keypoints,
            things=self.things,
            target_pose_width=self.target_pose_width,
            draws=self.draws,
            steps=self.steps,
            levels=self.levels,
        )
        if self.levels > len(map_channels(self.channels)):
            raise ValueError(f"levels {self.levels} are more than the maps of channels {self.channels}")
        if self.things > self.keypoints:
            raise ValueError(f"things {self.things} are more than keypoints {self.keypoints}")
        for name in ("prefix_steps", "localisation_weight", "pose_weight"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} {getattr(self, name)} is negative")


@dataclass(frozen=True)
class Context:
    """What is seen, encoded once.

    Attributes:
        tokens: (B, n, width) that the action transformer looks at.
        logits: (B, cameras, things, h, w) of every camera's first keypoints.
        target_pose: (B, things, target_pose_width) predicted.
    """

    tokens: Tensor
    logits: Tensor
    target_pose: Tensor


class FlowVla(Architecture):
    """See the module."""

    name = "flow_vla"
    config_class = FlowVlaConfig
    supports_prefix = True

    config: FlowVlaConfig

    def __init__(self, spec: ModelSpec, config: FlowVlaConfig) -> None:
        super().__init__(spec, config)
        self.context = _ContextEncoder(spec, config)
        self.flow = _ActionFlow(spec, config)

    def losses(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        config = self.config
        context = self.context(batch.inputs)
        tokens, actions, counts, noise, count, has_action = make_draws(
            context.tokens, batch, config.draws, config.prefix_steps, generator
        )
        time = sample_times(len(actions), generator=generator, device=generator.device).to(actions)
        time = step_times(time, count, self.spec.horizon)
        velocity = without_padding(lambda x, t: self.flow(x, t, tokens), has_action)
        losses = {"flow": free_mean(flow_error(velocity, actions, noise, time), counts, count)}
        total = losses["flow"]
        if batch.target_xy is not None:
            losses["localisation"] = localisation_loss(context.logits, batch.target_xy, batch.target_visible)
            total = total + config.localisation_weight * losses["localisation"]
        if batch.target_pose is not None:
            distance = (context.target_pose - batch.target_pose).abs().mean(-1)
            losses["target_pose"] = counted_mean(distance, batch.target_pose_valid)
            total = total + config.pose_weight * losses["target_pose"]
        return {**losses, "total": total}

    def sample(self, inputs: Inputs, noise: Tensor, prefix: ActionPrefix | None = None) -> Tensor:
        prefix = no_prefix(noise) if prefix is None else prefix
        tokens = self.context(inputs).tokens

        def velocity(actions: Tensor, time: Tensor) -> Tensor:
            return self.flow(actions, time, tokens)

        conditioned = conditioned_on_prefix(without_padding(velocity, inputs.has_action), prefix.actions, prefix.count)
        return with_prefix(integrate(conditioned, noise, self.config.steps), prefix.actions, prefix.count)

    def locate(self, inputs: Inputs) -> Tensor:
        """Where in every image the network sees what is meant, (B, cameras, things, 2) as `Batch.target_xy`."""
        return soft_argmax(self.context(inputs).logits)


class _ContextEncoder(nn.Module):
    """Images, state and instruction to the tokens that actions are made of."""

    def __init__(self, spec: ModelSpec, config: FlowVlaConfig) -> None:
        super().__init__()
        width, self.keypoints, self.things = config.width, config.keypoints, config.things
        self.instruction = (
            InstructionEncoder(spec, width, config.heads) if spec.takes_language else _SameQuestion(width)
        )
        self.cameras = nn.ModuleList(ImageEncoder(config.channels, width, config.levels) for _ in spec.images)
        self.from_map = nn.ModuleList(nn.Conv2d(config.channels[-1], width, 1) for _ in spec.images)
        self.to_queries = nn.ModuleList(nn.Linear(width, config.keypoints * width) for _ in spec.images)
        self.from_keypoint = nn.Linear(width + 2, width)
        self.keypoint_names = nn.Parameter(0.02 * torch.randn(len(spec.images) * config.keypoints, width))
        self.from_state = nn.Linear(spec.state_width, width)
        self.to_pose = nn.Sequential(
            nn.Linear((len(spec.images) * config.keypoints + 2) * width, width // 2),
            nn.GELU(),
            nn.Linear(width // 2, config.things * config.target_pose_width),
        )
        self.from_pose = nn.Linear(config.target_pose_width, width)
        self.thing_names = nn.Parameter(0.02 * torch.randn(config.things, width))
        self.norm = nn.LayerNorm(width)

    def forward(self, inputs: Inputs) -> Context:
        asked = self.instruction(inputs.words)
        found = [self._find(i, image, asked) for i, image in enumerate(inputs.images.unbind(1))]
        keypoints = self.from_keypoint(torch.cat([features for features, _ in found], dim=1)) + self.keypoint_names
        seen = torch.cat([keypoints, self.from_state(inputs.state)[:, None]], dim=1)
        pose = self.to_pose(torch.cat([seen.flatten(1), asked], dim=1)).unflatten(1, (self.things, -1))
        tokens = self.norm(torch.cat([seen, asked[:, None], self.from_pose(pose) + self.thing_names], dim=1))
        return Context(tokens, torch.stack([logits[:, : self.things] for _, logits in found], dim=1), pose)

    def _find(self, camera: int, image: Tensor, asked: Tensor) -> tuple[Tensor, Tensor]:
        """Features and position (B, keypoints, width + 2) of one camera's keypoints, and their logits (B, k, h, w)."""
        features = self.from_map[camera](self.cameras[camera](image, asked))
        queries = self.to_queries[camera](asked).reshape(len(asked), self.keypoints, -1)
        logits = (queries @ features.flatten(2)) * features.shape[1] ** -0.5
        pooled = logits.softmax(-1) @ features.flatten(2).transpose(1, 2)
        logits = logits.reshape(len(asked), self.keypoints, *features.shape[2:])
        return torch.cat([pooled, 2.0 * soft_argmax(logits) - 1.0], dim=2), logits


class _SameQuestion(nn.Module):
    """In the place of an instruction, where the vocabulary is empty: one learned vector."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.vector = nn.Parameter(torch.randn(width))

    def forward(self, words: Tensor) -> Tensor:
        return self.vector.expand(len(words), -1)


class _ActionFlow(nn.Module):
    """The velocity (B, H, d) from noise, time 0, to actions, time 1; every action token has a time of its own."""

    def __init__(self, spec: ModelSpec, config: FlowVlaConfig) -> None:
        super().__init__()
        width = config.width
        self.from_action = nn.Linear(spec.action_width, width)
        self.from_time = nn.Sequential(nn.Linear(2 * width, width), nn.SiLU(), nn.Linear(width, width))
        self.blocks = nn.ModuleList(
            TransformerBlock(width, config.heads, config.mlp_width, has_memory=True) for _ in range(config.layers)
        )
        self.to_velocity = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, spec.action_width))

    def forward(self, actions: Tensor, time: Tensor, context: Tensor) -> Tensor:
        """Times are (B, H): a step at time 1 is without noise, which is what a committed one is."""
        x = self.from_action(actions)
        width = x.shape[2]
        x = self.from_time(torch.cat([x, sinusoids(1000.0 * time, width)], dim=2))
        x = x + sinusoids(torch.arange(x.shape[1], device=x.device), width)
        for block in self.blocks:
            x = block(x, context)
        return self.to_velocity(x)
