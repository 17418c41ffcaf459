"""A learner whose answers are to be smooth: the network is asked, and rough chunks cost."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from vla_ros.policies.architectures.base import Batch, action_counts, draw_normal
from vla_ros.policies.architectures.losses import smoothness
from vla_ros.training.learner import Learner
from vla_ros.training.options import Smoothness
from vla_ros.training.wrapping import WrappedLearner


class SmoothedLearner(WrappedLearner):
    """A learner with the term `roughness`, of its answer's n-th difference in normalised units, the period being 1.

    A network that samples in steps is differentiated through all of them.

    Args:
        inner: its module is one of `architectures`.
        config: how.
    """

    def __init__(self, inner: Learner, config: Smoothness) -> None:
        super().__init__(inner)
        self._network: Any = inner.module
        self._config = config

    def losses(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """See `Learner.losses`."""
        losses = self.inner.losses(batch, generator)
        answer = self._network.sample(batch.inputs, draw_normal(batch.actions, generator))
        rough = smoothness(answer, action_counts(batch), self._config.order)
        return {**losses, "roughness": rough, "total": losses["total"] + self._config.weight * rough}
