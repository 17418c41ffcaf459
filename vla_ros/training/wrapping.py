"""A learner around another one: what changes its loss and nothing else, so that several of them stack."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vla_ros.training.learner import Learner


class WrappedLearner:
    """Another learner, whose weights, checkpoints and loss are its own. A subclass changes `losses`.

    Nothing that a subclass holds changes from step to step, so going on after an interruption needs no more than the
    inner learner does.

    Args:
        inner: what learns.
    """

    def __init__(self, inner: Learner) -> None:
        self.inner = inner
        self.module = inner.module

    def losses(self, batch: Any, generator: torch.Generator) -> dict[str, Tensor]:
        """See `Learner.losses`."""
        return self.inner.losses(batch, generator)

    def save(self, folder: Path) -> None:
        """See `Learner.save`."""
        self.inner.save(folder)

    def describe(self) -> dict[str, Any]:
        """See `Learner.describe`."""
        return self.inner.describe()
