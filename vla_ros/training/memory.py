"""What training has to remember to go on as if it had never stopped, as named tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from vla_ros.errors import ConfigError
from vla_ros.training.average import WeightAverage


def trained_weights(module: nn.Module) -> dict[str, Tensor]:
    """The weights that are trained, by name."""
    return {name: weight for name, weight in module.named_parameters() if weight.requires_grad}


def remember(module: nn.Module, average: WeightAverage, optimiser: Any) -> dict[str, Tensor]:
    """Weights, their average, buffers and the optimiser's state, each under a prefix of its own.

    Buffers that are no part of a module's state are left out: they follow from what it was made of, as the codes of
    quantised weights do.

    What is random follows from seed and step alone, so no generator's state is among them.
    """
    found = {f"weight/{name}": weight for name, weight in trained_weights(module).items()}
    found |= {f"average/{name}": value for name, value in average.averages.items()}
    found |= {f"buffer/{name}": value for name, value in _kept_buffers(module).items()}
    names = _names(module, optimiser)
    for index, state in optimiser.state_dict()["state"].items():
        found |= {f"optimiser.{key}/{names[index]}": torch.as_tensor(value) for key, value in state.items()}
    # Copies, since two names may share memory, which safetensors refuses.
    return {name: tensor.detach().cpu().clone().contiguous() for name, tensor in found.items()}


def recall(tensors: Mapping[str, Tensor], module: nn.Module, average: WeightAverage, optimiser: Any) -> None:
    """Puts everything back that `remember` gave.

    Raises:
        ConfigError: if it is of another network; nothing has changed then.
    """
    weights = trained_weights(module)
    places = {f"weight/{name}": weight for name, weight in weights.items()}
    places |= {f"average/{name}": value for name, value in average.averages.items()}
    places |= {f"buffer/{name}": value for name, value in _kept_buffers(module).items()}
    for name, place in places.items():
        if name not in tensors or tensors[name].shape != place.shape:
            shape = tuple(tensors[name].shape) if name in tensors else "missing"
            raise ConfigError(
                f"--resume: {name}", f"is {shape}, needs {tuple(place.shape)}", "go on with the settings it began with"
            )
    with torch.no_grad():
        for name, place in places.items():
            place.copy_(tensors[name])
    indices = {name: index for index, name in _names(module, optimiser).items()}
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        group, _, parameter = name.partition("/")
        if group.startswith("optimiser."):
            state.setdefault(indices[parameter], {})[group.removeprefix("optimiser.")] = tensor
    optimiser.load_state_dict({**optimiser.state_dict(), "state": state})


def _kept_buffers(module: nn.Module) -> dict[str, Tensor]:
    kept = module.state_dict(keep_vars=True).keys()
    return {name: value for name, value in module.named_buffers() if name in kept}


def _names(module: nn.Module, optimiser: Any) -> dict[int, str]:
    """Names of an optimiser's weights by the numbers under which it keeps their state."""
    names = {id(weight): name for name, weight in module.named_parameters()}
    weights = [weight for group in optimiser.param_groups for weight in group["params"]]
    return {index: names[id(weight)] for index, weight in enumerate(weights)}
