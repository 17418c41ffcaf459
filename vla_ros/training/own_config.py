"""The settings of a training run of one of our own networks: `config/training/*.yaml`, or a file of one's own."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from vla_ros.training.augmentation import Augmentation
from vla_ros.training.config import LoopConfig
from vla_ros.training.data_config import PolicyDataConfig
from vla_ros.training.options import Options


@dataclass(frozen=True, kw_only=True)
class TrainingConfig(PolicyDataConfig):
    """A training run of one of our own networks; what is learned from is said in `data_config`.

    Attributes:
        policy: the network, by its name in `vla_ros.policies.architectures`.
        architecture: the network's own settings, where they aren't its defaults.
        horizon: actions in a chunk.
        max_words: longest instruction that the network takes.
        augment: whether images are varied.
        augmentation: how much.
        loop: how it is trained.
        options: what else changes the loss.
    """

    policy: str
    architecture: dict[str, Any] = field(default_factory=dict)
    horizon: int = 8
    max_words: int = 16
    augment: bool = True
    augmentation: Augmentation = field(default_factory=Augmentation)
    loop: LoopConfig = field(default_factory=LoopConfig)
    options: Options = field(default_factory=Options)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("horizon", "max_words"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} {getattr(self, name)} is below 1")
