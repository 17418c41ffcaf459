"""One step of training, the same for every network."""

from __future__ import annotations

import torch
from torch import nn

from vla_ros.errors import VlaRosError
from vla_ros.policies.architectures.base import Architecture, Batch


class TrainingError(VlaRosError):
    """A training step that can't be taken; the weights are as they were before it."""


def train_step(
    model: Architecture,
    batch: Batch,
    optimiser: torch.optim.Optimizer,
    generator: torch.Generator,
    max_gradient_norm: float = 1.0,
) -> dict[str, float]:
    """Takes one step of gradient descent.

    Args:
        model: in training mode.
        batch: examples.
        optimiser: over the model's parameters.
        generator: on the CPU; settles all that is random in the step, dropout included.
        max_gradient_norm: the gradient is shortened to this length.

    Returns:
        The losses before the step, and `gradient_norm` before it was shortened.

    Raises:
        TrainingError: if a loss or the gradient isn't finite; no weight has changed then.
    """
    optimiser.zero_grad(set_to_none=True)
    with torch.random.fork_rng():
        torch.manual_seed(int(torch.randint(2**31, (1,), generator=generator)))
        losses = model.losses(batch, generator)
    figures = {name: float(loss.detach()) for name, loss in losses.items()}
    for name, figure in figures.items():
        if not abs(figure) < float("inf"):
            raise TrainingError(
                f"loss {name!r} of {model.name} is {figure}; look for NaN in the batch, or learn slower"
            )
    torch.autograd.backward(losses["total"])
    figures["gradient_norm"] = float(nn.utils.clip_grad_norm_(model.parameters(), max_gradient_norm))
    if not figures["gradient_norm"] < float("inf"):
        raise TrainingError(f"gradient of {model.name} has the norm {figures['gradient_norm']}; learn slower")
    optimiser.step()
    return figures
