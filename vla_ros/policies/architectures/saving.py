"""A network in a folder: a description in JSON and weights in safetensors. Nothing is unpickled."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from vla_ros.config import build
from vla_ros.errors import ConfigError
from vla_ros.policies.architectures.base import Architecture, architecture_class
from vla_ros.policies.architectures.spec import ModelSpec

DESCRIPTION_FILE, WEIGHTS_FILE = "architecture.json", "model.safetensors"


@dataclass(frozen=True)
class _Description:
    """What a description holds; the config's keys depend on the architecture."""

    architecture: str
    config: dict[str, Any]
    spec: ModelSpec


def describe_architecture(model: Architecture) -> dict[str, Any]:
    """All that is needed to make the network again, but for the weights, as plain JSON data."""
    described = {"architecture": model.name, "config": dataclasses.asdict(model.config)}
    # Through JSON, so that tuples are lists as they will be when it is read.
    plain: dict[str, Any] = json.loads(json.dumps({**described, "spec": dataclasses.asdict(model.spec)}))
    return plain


def make_architecture(description: Mapping[str, Any], where: str) -> Architecture:
    """Makes the network of a description, with weights drawn anew.

    Args:
        description: of `describe_architecture`.
        where: the file that it comes from, for the error text.

    Raises:
        ConfigError: for a missing or unknown key, or a value that can't be.
        UnknownNameError: for an unknown architecture.
    """
    found = build(_Description, dict(description), where)
    cls = architecture_class(found.architecture)
    config = build(cls.config_class, found.config, f"{where}: config")
    return cls(found.spec, config)


def save_weights(model: Architecture, path: Path) -> None:
    """Writes the weights as safetensors; where float16 holds all of them exactly (`round_to_half`), in that."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    if all(torch.equal(tensor.half().to(tensor.dtype), tensor) for tensor in tensors.values()):
        tensors = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
    save_file(tensors, path)


def round_to_half(model: Architecture) -> None:
    """Rounds the weights to what float16 holds, so that files have half the size; the network computes as before.

    Raises:
        ConfigError: if a weight is too large for it.
    """
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            rounded = parameter.half().to(parameter.dtype)
            if not bool(torch.isfinite(rounded).all()):
                problem = f"tensor {name!r} has {float(parameter.abs().max()):.3g}, past float16's 65504"
                raise ConfigError(f"weights of {model.name}", problem, "keep them in float32")
            parameter.copy_(rounded)


def load_weights(model: Architecture, path: Path) -> None:
    """Reads weights that `save_weights` wrote; all must be there, in shape, type and finite, and no others.

    Raises:
        ConfigError: naming the first tensor that doesn't fit; the model is untouched then.
    """
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise ConfigError(
            str(path), f"isn't a safetensors file ({error})", "give the file that training wrote"
        ) from error
    wanted = model.state_dict()
    mend = f"give weights of the same {model.name} and config"
    for name in sorted(wanted.keys() | tensors.keys()):
        if name not in tensors:
            raise ConfigError(str(path), f"tensor {name!r} is missing", mend)
        if name not in wanted:
            raise ConfigError(str(path), f"unknown tensor {name!r}", mend)
        if tensors[name].shape != wanted[name].shape:
            shapes = f"{tuple(tensors[name].shape)}, needs {tuple(wanted[name].shape)}"
            raise ConfigError(str(path), f"tensor {name!r} has the shape {shapes}", mend)
        if tensors[name].dtype == torch.float16 and wanted[name].dtype == torch.float32:
            tensors[name] = tensors[name].float()  # Exactly the same numbers.
        if tensors[name].dtype != wanted[name].dtype:
            types = f"{tensors[name].dtype}, needs {wanted[name].dtype}"
            raise ConfigError(str(path), f"tensor {name!r} is of {types}", "convert it, knowing what that does")
        if not bool(torch.isfinite(tensors[name]).all()):
            raise ConfigError(str(path), f"tensor {name!r} holds NaN or infinity", "train again, or take an older file")
    model.load_state_dict(tensors)


def save_architecture(model: Architecture, folder: Path) -> None:
    """Writes description and weights into a folder, which is made if need be."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(describe_architecture(model), indent=2)
    (folder / DESCRIPTION_FILE).write_text(text + "\n", encoding="utf-8")
    save_weights(model, folder / WEIGHTS_FILE)


def load_architecture(folder: Path) -> Architecture:
    """The network that `save_architecture` wrote, in evaluation mode.

    Raises:
        ConfigError: for a file that is missing, holds unknown keys, or doesn't fit; see `load_weights`.
    """
    path = folder / DESCRIPTION_FILE
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(str(path), f"can't be read ({error})", "give the folder that training wrote") from error
    if not isinstance(description, dict):
        raise ConfigError(str(path), f"holds {type(description).__name__}", "it has to be a mapping of keys to values")
    model = make_architecture(description, str(path))
    load_weights(model, folder / WEIGHTS_FILE)
    return model.eval()
