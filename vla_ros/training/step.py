"""One step of training, the same for whatever is trained."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vla_ros.errors import VlaRosError

Losses = Callable[[Any, torch.Generator], dict[str, Tensor]]


class TrainingError(VlaRosError):
    """A training step that can't be taken; the weights are as they were before it.

    Args:
        quantity: which loss, or the gradient.
        value: that it has.
        where: which step of what, for the text.
    """

    def __init__(self, quantity: str, value: float, where: str = "") -> None:
        self.quantity, self.value = quantity, value
        super().__init__(
            f"{quantity} is {value}{where and ' ' + where}; look for NaN and huge numbers in the data, "
            "or learn slower (a smaller learning_rate, a longer warm_up_steps)"
        )


def step_generator(seed: int, step: int, process: int = 0) -> torch.Generator:
    """Source of all that is random in a step of one of the processes."""
    (state,) = np.random.SeedSequence([seed, step, process]).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state >> np.uint64(1)))


def kept_dropout() -> AbstractContextManager[None]:
    """Torch's own sources of what is random are after the block what they were before, on the CPU and this GPU."""
    return torch.random.fork_rng(devices=[torch.cuda.current_device()] if torch.cuda.is_available() else [])


def train_step(
    losses: Losses,
    batch: Any,
    optimiser: Any,
    generator: torch.Generator,
    *,
    max_gradient_norm: float = 1.0,
    accelerator: Any = None,
    where: str = "",
) -> dict[str, float]:
    """Takes one step of gradient descent.

    Args:
        losses: of a batch, as `Learner.losses`.
        batch: examples.
        optimiser: over what is to be trained.
        generator: on the CPU; settles all that is random in the step, dropout included.
        max_gradient_norm: the gradient is shortened to this length.
        accelerator: of `accelerate`, which averages over processes; None for this process alone.
        where: for the text of an error.

    Returns:
        The losses before the step, and `gradient_norm` before it was shortened.

    Raises:
        TrainingError: if a loss or the gradient isn't finite; no weight has changed then.
    """
    optimiser.zero_grad(set_to_none=True)
    with kept_dropout():
        torch.manual_seed(int(torch.randint(2**31, (1,), generator=generator)))
        found = losses(batch, generator)
    # In one transfer, and the mean over all processes, so that all of them refuse what one of them finds.
    values = torch.stack([loss.detach().float() for loss in found.values()])
    values = values if accelerator is None else accelerator.reduce(values, "mean")
    figures = dict(zip(found, values.tolist(), strict=True))
    for name, figure in figures.items():
        if not math.isfinite(figure):
            raise TrainingError(f"loss {name!r}", figure, where)
    parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    if accelerator is None:
        torch.autograd.backward(found["total"])
        norm = nn.utils.clip_grad_norm_(parameters, max_gradient_norm)
    else:
        accelerator.backward(found["total"])
        norm = accelerator.clip_grad_norm_(parameters, max_gradient_norm)
    figures["gradient_norm"] = float(norm)
    if not math.isfinite(figures["gradient_norm"]):
        raise TrainingError("norm of the gradient", figures["gradient_norm"], where)
    optimiser.step()
    return figures
