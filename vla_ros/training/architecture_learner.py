"""Our own networks as something that learns."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vla_ros.contract import Contract
from vla_ros.policies.architectures.base import Architecture, Batch
from vla_ros.policies.architectures.saving import describe_architecture
from vla_ros.policies.statistics_file import CheckpointStatistics
from vla_ros.policies.torch_model import save_policy


@dataclass(frozen=True)
class ArchitectureLearner:
    """A network of `vla_ros.policies.architectures`, which becomes a checkpoint of the policy kind `learned`.

    Attributes:
        module: the network.
        contract: of the training data.
        statistics: with which that is normalised.
    """

    module: Architecture
    contract: Contract
    statistics: CheckpointStatistics

    def losses(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """See `Learner.losses`."""
        return self.module.losses(batch, generator)

    def save(self, folder: Path) -> None:
        """See `Learner.save`."""
        save_policy(folder, self.module, self.contract, self.statistics)

    def describe(self) -> dict[str, Any]:
        """See `Learner.describe`."""
        hashes = {"interface_hash": self.contract.interface_hash, "stats_hash": self.statistics.stats_hash}
        return {"name": self.module.name, **describe_architecture(self.module), **hashes}
