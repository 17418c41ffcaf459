"""A progress critic: images, state and instruction to how far a task is, between 0 and 1.

It says a distribution over bins, whose mean is the value; a mean squared error would learn more slowly where episodes
that look alike end differently.

Source: pi*0.6, arXiv 2511.14759 (distributional value, cross-entropy); two neighbouring bins share a target, as in
Schrittwieser et al., arXiv 1911.08265, appendix F.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from vla_ros.config import build, plain
from vla_ros.errors import ConfigError
from vla_ros.files import whole_folder
from vla_ros.policies.architectures.base import Batch, Inputs
from vla_ros.policies.architectures.layers import check_attention, check_sizes
from vla_ros.policies.architectures.spec import ModelSpec
from vla_ros.policies.architectures.vision import SceneEncoder, check_channels
from vla_ros.training.weighting import look_up

_DESCRIPTION, _WEIGHTS = "critic.json", "critic.safetensors"


@dataclass(frozen=True)
class CriticConfig:
    """Settings of the critic.

    Attributes:
        width: of the scene's vector.
        heads: of the instruction's attention.
        keypoints: per camera.
        bins: over values from 0 to 1, at least 2.
        channels: of every camera's convolution net; each stage halves the image.
    """

    width: int = 128
    heads: int = 4
    keypoints: int = 16
    bins: int = 51
    channels: tuple[int, ...] = (32, 64, 64)

    def __post_init__(self) -> None:
        check_attention(self.width, self.heads)
        check_channels(self.channels)
        check_sizes(keypoints=self.keypoints, bins=self.bins - 1)


class ProgressCritic(nn.Module):
    """See the module."""

    def __init__(self, spec: ModelSpec, config: CriticConfig) -> None:
        super().__init__()
        self.spec, self.config = spec, config
        self.scene = SceneEncoder(spec, config.channels, config.keypoints, config.width, config.heads)
        self.head = nn.Sequential(nn.GELU(), nn.Linear(config.width, config.bins))

    def forward(self, inputs: Inputs) -> Tensor:
        """Logits (B, bins)."""
        return self.head(self.scene(inputs))

    def value(self, inputs: Inputs) -> Tensor:
        """(B,) in [0, 1]."""
        logits = self(inputs)
        return logits.softmax(dim=-1) @ torch.linspace(0.0, 1.0, logits.shape[-1], device=logits.device)


def two_hot(values: Tensor, bins: int) -> Tensor:
    """Values (...) in [0, 1] to distributions (..., bins) over even bins, of which they are the means."""
    place = values[..., None].clamp(0.0, 1.0) * (bins - 1)
    return (1.0 - (place - torch.arange(bins, device=values.device)).abs()).clamp(min=0.0)


class CriticLearner:
    """A critic and what it should say of every example. A `vla_ros.training.learner.Learner`.

    Args:
        module: the critic.
        targets: (n,) in [0, 1], by `Batch.index`; NaN where nobody knows, of which nothing is learned.
    """

    def __init__(self, module: ProgressCritic, targets: NDArray[np.float64]) -> None:
        self.module = module
        self._targets = torch.from_numpy(np.asarray(targets, dtype=np.float32))

    def losses(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """See `Learner.losses`."""
        target = look_up(self._targets, batch)
        is_known = target.isfinite()
        wanted = two_hot(torch.where(is_known, target, 0.0), self.module.config.bins)
        nll = -(wanted * self.module(batch.inputs).log_softmax(dim=-1)).sum(dim=-1)
        loss = (nll * is_known).sum() / is_known.sum().clamp(min=1)
        return {"cross_entropy": loss, "total": loss}

    def save(self, folder: Path) -> None:
        """See `Learner.save`; it isn't a policy's checkpoint but what `load_critic` reads."""
        with whole_folder(folder) as partial:
            save_file({name: t.contiguous() for name, t in self.module.state_dict().items()}, partial / _WEIGHTS)
            (partial / _DESCRIPTION).write_text(json.dumps(self.describe(), indent=1) + "\n", encoding="utf-8")

    def describe(self) -> dict[str, Any]:
        """See `Learner.describe`."""
        spec, config = (plain(dataclasses.asdict(item)) for item in (self.module.spec, self.module.config))
        return {"name": "critic", "spec": spec, "config": config}


def load_critic(folder: Path) -> ProgressCritic:
    """The critic that was saved there, in evaluation mode.

    Raises:
        ConfigError: for a file that is missing or doesn't fit.
    """
    path = folder / _DESCRIPTION
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        spec, config = found["spec"], found["config"]
        tensors = load_file(folder / _WEIGHTS)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            str(path), f"isn't a critic ({error})", "give the folder that vla-ros critic wrote"
        ) from error
    critic = ProgressCritic(build(ModelSpec, spec, f"{path}: spec"), build(CriticConfig, config, f"{path}: config"))
    try:
        critic.load_state_dict(tensors)
    except RuntimeError as error:
        raise ConfigError(str(folder / _WEIGHTS), f"doesn't fit {path} ({error})", "copy the folder anew") from error
    return critic.eval().requires_grad_(False)
