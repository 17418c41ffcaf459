"""A network of our own, run by torch, and its way into a checkpoint and out of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from vla_ros.contract import Contract
from vla_ros.errors import ConfigError
from vla_ros.policies.architectures.base import ActionPrefix, Architecture, Inputs
from vla_ros.policies.architectures.saving import (
    describe_architecture,
    load_weights,
    make_architecture,
    save_weights,
)
from vla_ros.policies.checkpoint import Checkpoint, write_checkpoint
from vla_ros.policies.guided import can_guide, sample_guided
from vla_ros.policies.model_runtime import Float32Array, ModelInputs, ModelPrefix, PrefixWay
from vla_ros.policies.statistics_file import CheckpointStatistics


def save_policy(folder: Path, model: Architecture, contract: Contract, statistics: CheckpointStatistics) -> Checkpoint:
    """Writes a network as a checkpoint that the policy kind `learned` runs, whole or not at all.

    Args:
        folder: where to; what was there is replaced.
        model: the network.
        contract: of its training data.
        statistics: with which its training data was normalised.
    """
    description = describe_architecture(model)
    return write_checkpoint(
        folder,
        architecture=description["architecture"],
        config=description["config"],
        spec=model.spec,
        contract=contract,
        statistics=statistics,
        write_weights=lambda path: save_weights(model, path),
    )


def load_model(checkpoint: Checkpoint, steps: int | None = None) -> Architecture:
    """The network of a checkpoint, for inference.

    Args:
        checkpoint: as read.
        steps: of the sampler, in the place of the configuration's `steps`; None to keep those.

    Raises:
        ConfigError: if the weights don't fit the configuration, or it has no `steps` to change.
    """
    description = checkpoint.description
    if steps is not None:
        if "steps" not in description["config"]:
            problem = f"steps {steps} is given, and {description['architecture']} samples in one step"
            raise ConfigError(f"checkpoint {checkpoint.folder}", problem, "leave steps out")
        description["config"] = {**description["config"], "steps": steps}
    model = make_architecture(description, str(checkpoint.folder / "policy.json"))
    load_weights(model, checkpoint.weights)
    return model.eval().requires_grad_(False)


class TorchModel:
    """See the module.

    Args:
        model: the network, for inference.
        device: torch's name of where it is to run.
        threads: for one inference on a CPU, for all of this process's models, as torch has it; 0 leaves that as it is.
        prefix: `auto`, `trained`, `guided` or `none`, as in a learned policy's parameters.

    Raises:
        ConfigError: if there is no such device, or the network can't do what `prefix` asks for.
    """

    name = "torch"

    def __init__(self, model: Architecture, device: str, threads: int, prefix: str = "auto") -> None:
        if threads:
            torch.set_num_threads(threads)
        try:
            self._model, self._device = model.to(device), torch.device(device)
        except (RuntimeError, AssertionError) as error:  # The latter where torch was built without CUDA.
            problem = f"isn't a device that torch can use here ({' '.join(str(error).split())})"
            raise ConfigError(f"device {device!r}", problem, "use cpu") from error
        ways: dict[PrefixWay, bool] = {"trained": model.supports_prefix, "guided": can_guide(model), "none": True}
        able = [way for way, is_able in ways.items() if is_able and prefix in ("auto", way)]
        if not able:
            problem = f"prefix is {prefix}, which {model.name} can't do"
            raise ConfigError("policy learned: parameters", problem, "use prefix auto")
        self.prefix_way: PrefixWay = able[0]

    def sample(self, inputs: ModelInputs, noise: Float32Array, prefix: ModelPrefix | None) -> Float32Array:
        """See `ModelRuntime.sample`."""
        seen = Inputs(*(self._tensor(array) for array in (inputs.images, inputs.state, inputs.words)))
        begun = self._tensor(noise)
        with torch.no_grad():
            if prefix is None:
                actions = self._model.sample(seen, begun, None)
            elif self.prefix_way == "guided":
                wanted, weights = self._tensor(prefix.actions), self._tensor(prefix.weights)
                actions = sample_guided(self._model, seen, begun, wanted, weights)
            else:
                count = torch.tensor([prefix.count], dtype=torch.int64, device=self._device)
                actions = self._model.sample(seen, begun, ActionPrefix(self._tensor(prefix.actions), count))
        return np.asarray(actions.cpu().numpy(), dtype=np.float32)

    def _tensor(self, array: Any) -> torch.Tensor:
        return torch.from_numpy(array).to(self._device)
