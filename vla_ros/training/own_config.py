"""The settings of a training run of one of our own networks: `config/training/*.yaml`, or a file of one's own."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from vla_ros.training.augmentation import Augmentation
from vla_ros.training.config import LoopConfig
from vla_ros.training.options import Options
from vla_ros.training.selection import Selection


@dataclass(frozen=True)
class TrainingConfig:
    """A training run of one of our own networks.

    Attributes:
        policy: the network, by its name in `vla_ros.policies.architectures`.
        contract: name or YAML file of what it sees and does; null for the datasets' own.
        datasets: folders; the command's `--dataset` come in their place.
        weights: how often each dataset is drawn from, relative to the others; null for all examples alike.
        architecture: the network's own settings, where they aren't its defaults.
        horizon: actions in a chunk.
        max_words: longest instruction that the network takes.
        selection: which frames are learned from.
        columns: of datasets that aren't ours: the contract's image or state item -> the dataset's column.
        augment: whether images are varied.
        augmentation: how much.
        held_out: share of the episodes that are examined and never trained on; 0 for none.
        held_out_examples: at most so many of their frames are examined each time.
        is_cached: whether prepared images are kept in files, else in memory.
        cache: folder of these; null for one in each dataset's.
        loop: how it is trained.
        options: what else changes the loss.
    """

    policy: str
    contract: str | None = None
    datasets: tuple[str, ...] = ()
    weights: tuple[float, ...] | None = None
    architecture: dict[str, Any] = field(default_factory=dict)
    horizon: int = 8
    max_words: int = 16
    selection: Selection = field(default_factory=Selection)
    columns: dict[str, str] = field(default_factory=dict)
    augment: bool = True
    augmentation: Augmentation = field(default_factory=Augmentation)
    held_out: float = 0.05
    held_out_examples: int = 512
    is_cached: bool = True
    cache: str | None = None
    loop: LoopConfig = field(default_factory=LoopConfig)
    options: Options = field(default_factory=Options)

    def __post_init__(self) -> None:
        if not 0.0 <= self.held_out < 1.0:
            raise ValueError(f"held_out {self.held_out} isn't in [0, 1)")
        for name in ("held_out_examples", "horizon", "max_words"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} {getattr(self, name)} is below 1")
        if self.weights is not None and self.datasets and len(self.weights) != len(self.datasets):
            raise ValueError(f"{len(self.weights)} weights of {len(self.datasets)} datasets; give one for each")
