"""What the training loop knows of what it trains and of what it trains on.

Anything with these few methods trains by the same loop: a network of our own (`architecture_learner`), adapters of a
large one, or either of them wrapped in another loss.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn


class Learner(Protocol):
    """A network with its loss, and the way in which it becomes a policy's checkpoint."""

    @property
    def module(self) -> nn.Module:
        """Holds every weight.

        Those with `requires_grad` when training begins are trained, averaged and kept for going on later; the others
        are left alone.
        """

    def losses(self, batch: Any, generator: torch.Generator) -> dict[str, Tensor]:
        """The terms of the loss, each a scalar; "total" is to be minimised, the others are for the log.

        Args:
            batch: what `Batches.batch` gave, on the module's device where it has a method `to(device)`.
            generator: on the CPU, source of all noise drawn here. Torch's own is seeded, too, for dropout.
        """

    def save(self, folder: Path) -> None:
        """Writes a whole policy checkpoint of the weights that the module has now; whole or not at all.

        What was at `folder` is replaced. The trainer puts the averaged weights into the module around this call.
        """

    def describe(self) -> dict[str, Any]:
        """What is trained, as plain JSON data: at least "name". A run goes on only with what describes itself alike."""


class Batches(Protocol):
    """Examples in an endless order that is settled beforehand, so that going on at a step needs only its number."""

    def __len__(self) -> int:
        """How many examples there are."""

    def batch(self, step: int, size: int) -> Any:
        """The examples at the places `step * size` up to `(step + 1) * size` of the order; the same at every call.

        Several processes ask for alternate parts of the same order, each with its own share of the size. May be
        called from another thread than the one that trains, but not from two at once.
        """
