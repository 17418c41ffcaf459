"""What the loop is built of: `accelerate`, the optimiser, and the loss in the form that both want."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.state import AcceleratorState
from torch import Tensor, nn

from vla_ros.errors import ConfigError
from vla_ros.training.config import LoopConfig
from vla_ros.training.learner import Learner

# Every process has all of the weights.
_WHOLE = ("NO", "MULTI_CPU", "MULTI_GPU", "MULTI_XPU", "MULTI_NPU")


class LearnerLosses(nn.Module):
    """A learner's loss as a forward pass, which is what `accelerate` wraps."""

    def __init__(self, learner: Learner) -> None:
        super().__init__()
        self.network = learner.module
        self._compute = learner.losses

    def forward(self, batch: Any, generator: torch.Generator) -> dict[str, Tensor]:
        return self._compute(batch, generator)


def make_accelerator(config: LoopConfig) -> Accelerator:
    """For one process, or for those that `accelerate launch` started.

    Raises:
        ConfigError: if that is set to share the weights out, of which a checkpoint would hold a part only.
    """
    # Its state belongs to the process, and another precision than that of a training before is refused.
    AcceleratorState._reset_state()
    # Auxiliary heads have no gradient in a batch in which nobody knows what they should say.
    unused = DistributedDataParallelKwargs(find_unused_parameters=True)
    made = Accelerator(mixed_precision="bf16" if config.precision == "bf16" else "no", kwargs_handlers=[unused])
    if made.distributed_type.name not in _WHOLE:
        problem = f"is set to {made.distributed_type.name}, and only whole weights can be trained here"
        raise ConfigError("accelerate", problem, "use accelerate launch --multi_gpu")
    return made


def make_optimiser(weights: Mapping[str, Tensor], config: LoopConfig) -> torch.optim.Optimizer:
    """AdamW, which lets nothing decay that has one dimension only."""
    decayed = [weight for weight in weights.values() if weight.ndim >= 2]
    others = [weight for weight in weights.values() if weight.ndim < 2]
    groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]], lr=config.learning_rate, betas=config.betas
    )
