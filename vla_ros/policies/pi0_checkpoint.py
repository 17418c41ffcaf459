"""What is read of a pi0 checkpoint before its weights, and whether it fits a contract. Imports no torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from vla_ros.contract import Contract, action_width, state_width
from vla_ros.errors import ConfigError, ContractError
from vla_ros.policies.fit import differing_line, find_contract_differences, find_width_differences
from vla_ros.policies.normalisation import Statistics
from vla_ros.policies.statistics_file import STATISTICS_FILE, CheckpointStatistics

_WEIGHTS = ("model.safetensors", "model.safetensors.index.json")


@dataclass(frozen=True)
class Pi0Parameters:
    """What the YAML of a `pi0` policy says.

    Attributes:
        checkpoint: the folder.
        device: torch's name of where it runs.
        dtype: of weights and activations.
        images: the contract's images in the order in which the checkpoint was given its cameras; by default all of
            them, in the contract's order.
        steps: Euler steps from noise to actions; null takes the checkpoint's.
        longest_prompt: tokens of an instruction; a longer one is refused.
    """

    checkpoint: str
    device: str = "cpu"
    dtype: Literal["float32", "bfloat16"] = "float32"
    images: tuple[str, ...] = ()
    steps: int | None = None
    longest_prompt: int = 48

    def __post_init__(self) -> None:
        for key in ("steps", "longest_prompt"):
            value = getattr(self, key)
            if value is not None and value < 1:
                raise ValueError(f"{key} {value} is below 1")


@dataclass(frozen=True)
class Pi0Checkpoint:
    """A checkpoint that fits its contract, as far as that is known without its weights.

    Attributes:
        folder: where it lies.
        images: names in the contract, in the order of the checkpoint's cameras.
        state: statistics of the state vector.
        action: statistics of the action.
    """

    folder: Path
    images: tuple[str, ...]
    state: Statistics
    action: Statistics


def read_checkpoint(contract: Contract, parameters: Pi0Parameters) -> Pi0Checkpoint:
    """Reads all but the weights and the tokenizer.

    Raises:
        ContractError: if the contract's widths or images aren't what the checkpoint takes, naming each.
        ConfigError: if the folder isn't a pi0 checkpoint's, or lacks its weights.
    """
    folder = Path(parameters.checkpoint).expanduser()
    if not folder.is_dir():
        raise ConfigError(str(folder), "no such folder", "give one that PI0ForConditionalGeneration was saved in")
    config = _read_config(folder)
    if not any((folder / name).is_file() for name in _WEIGHTS):
        raise ConfigError(str(folder), "has no model.safetensors", "save the weights into it as safetensors")
    state, action, wrong = _read_statistics(folder, contract)
    images = parameters.images or tuple(contract.observation.images)
    _check(contract, images, config, {"state": state.width, "action": action.width}, wrong)
    return Pi0Checkpoint(folder, images, state, action)


def _read_config(folder: Path) -> Mapping[str, Any]:
    data = _read_json(folder / "config.json")
    if data.get("model_type") != "pi0":
        raise ConfigError(
            str(folder / "config.json"),
            f"model_type is {data.get('model_type')!r}, not 'pi0'",
            "a folder that lerobot saved goes with kind lerobot; openpi's own is served by openpi (kind remote)",
        )
    return data


def _read_statistics(folder: Path, contract: Contract) -> tuple[Statistics, Statistics, list[str]]:
    """Those of state and action, and where they, or the folder's own contract, don't fit the contract."""
    found = CheckpointStatistics.load(folder / STATISTICS_FILE)
    if found.state is None or found.action is None:
        raise ConfigError(
            str(folder / STATISTICS_FILE),
            "lacks state or action, whose widths say how much of the model's is padding",
            "compute both from the training data",
        )
    return (
        found.state,
        found.action,
        [
            *(f"  {line}" for line in found.find_mismatches(contract)),
            *find_contract_differences(folder, contract),
        ],
    )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(str(path), f"can't be read ({error})", "give a folder with a whole pi0 checkpoint") from error
    if not isinstance(data, dict):
        raise ConfigError(str(path), f"holds {type(data).__name__}", "it has to be an object of keys and values")
    return data


def _check(
    contract: Contract, images: tuple[str, ...], config: Mapping[str, Any], widths: Mapping[str, int], wrong: list[str]
) -> None:
    """Refuses what doesn't fit, every line of it."""
    observation = contract.observation
    differing = [
        differing_line(f"image {name!r}", "takes it", f"has {', '.join(observation.images)}")
        for name in images
        if name not in observation.images
    ]
    if observation.history_steps != 1:
        differing.append(differing_line("observation.history_steps", 1, observation.history_steps))
    for name, width in widths.items():
        limit = int(config.get(f"max_{name}_dim", 32))
        if width > limit:
            differing.append(f"  {name}: its statistics have {width} entries, the model takes {limit}")
    differing += find_width_differences(
        {
            "state": (widths["state"], lambda joints: state_width(observation, joints)),
            "action": (widths["action"], lambda joints: action_width(contract.action, joints)),
        }
    )
    if differing or wrong:
        lines = "\n".join([*differing, *wrong])
        raise ContractError(f"contract {contract.name} doesn't fit the pi0 checkpoint:\n{lines}")
